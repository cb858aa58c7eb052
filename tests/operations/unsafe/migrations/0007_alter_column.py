from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("privacy", "0006_not_reversible")]

    operations = [
        migrations.AlterField("thing", "three", models.TextField()),
    ]
