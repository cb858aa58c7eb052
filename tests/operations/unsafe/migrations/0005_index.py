from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("privacy", "0004_not_null_column")]

    operations = [
        migrations.AddIndex("thing", models.Index(fields=["second"], name="thing_second")),
    ]
