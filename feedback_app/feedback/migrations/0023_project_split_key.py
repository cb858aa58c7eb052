"""A random key for each project. Prompts keep the split that they have."""

from secrets import token_hex

from django.db import migrations, models

import feedback_app.feedback.models.projects


def fill(apps, schema_editor):
    Project = apps.get_model("feedback", "Project")
    for pk in Project.objects.filter(split_key="").values_list("pk", flat=True):
        Project.objects.filter(pk=pk).update(split_key=token_hex(32))


class Migration(migrations.Migration):
    dependencies = [("feedback", "0022_plain_labels")]

    operations = [
        migrations.AddField(
            "project", "split_key", models.CharField(max_length=64, default="", editable=False)
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
        migrations.AlterField(
            "project",
            "split_key",
            models.CharField(
                max_length=64,
                default=feedback_app.feedback.models.projects.split_key_new,
                editable=False,
            ),
        ),
    ]
