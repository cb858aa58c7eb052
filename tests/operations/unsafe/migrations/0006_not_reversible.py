from django.db import migrations


def fill(apps, schema_editor):
    apps.get_model("privacy", "Thing").objects.update(three=1)


class Migration(migrations.Migration):
    dependencies = [("privacy", "0005_index")]

    operations = [migrations.RunPython(fill)]
