from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("privacy", "0002_drop_column")]

    operations = [
        migrations.RenameField("thing", "two", "second"),
    ]
