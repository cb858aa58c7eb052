"""Files the answers of samplings as sampled: they were filed as imports before."""

from django.db import migrations

BATCH = 2_000


def move(apps, *, to, **of):
    """Sets the source of these completions, a batch at a time, each in its own transaction."""
    Completion = apps.get_model("feedback", "Completion")
    rows = Completion.objects.filter(**of).order_by("pk")
    last = 0
    while pks := list(rows.filter(pk__gt=last).values_list("pk", flat=True)[:BATCH]):
        Completion.objects.filter(pk__in=pks).update(source=to)
        last = pks[-1]


def file_as_sampled(apps, schema_editor):
    move(apps, to="sampled", source="import", sampling__isnull=False)


def file_as_imports(apps, schema_editor):
    move(apps, to="import", source="sampled")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("feedback", "0019_source_sampled")]

    operations = [migrations.RunPython(file_as_sampled, file_as_imports, elidable=True)]
