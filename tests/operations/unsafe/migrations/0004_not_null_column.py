from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("privacy", "0003_rename_column")]

    operations = [
        migrations.AddField("thing", "four", models.IntegerField(default=4)),
    ]
