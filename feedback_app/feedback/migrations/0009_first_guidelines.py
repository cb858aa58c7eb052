"""Guidelines from before are version 1; votes from before do not know theirs."""

from django.db import migrations


def write(apps, schema_editor):
    Project = apps.get_model("feedback", "Project")
    GuidelinesVersion = apps.get_model("feedback", "GuidelinesVersion")
    told = Project.objects.exclude(guidelines="").filter(guidelines_number=0)
    GuidelinesVersion.objects.bulk_create(
        GuidelinesVersion(project=project, number=1, text=project.guidelines) for project in told
    )
    told.update(guidelines_number=1)


class Migration(migrations.Migration):
    dependencies = [("feedback", "0008_guidelines_versions")]

    operations = [migrations.RunPython(write, migrations.RunPython.noop, elidable=True)]
