"""What completions from before know of their version, topic and votes. One statement each."""

from django.db import migrations
from django.db.models import Exists, OuterRef, Subquery


def fill(apps, schema_editor):
    Completion = apps.get_model("feedback", "Completion")
    Prompt = apps.get_model("feedback", "Prompt")
    Vote = apps.get_model("feedback", "Vote")
    topic = Prompt.objects.filter(pk=OuterRef("prompt_id")).values("topic")[:1]
    Completion.objects.filter(prompt__topic__gt="").update(topic=Subquery(topic))
    votes = Vote.objects.filter(completion=OuterRef("pk"))
    Completion.objects.filter(
        Exists(votes.filter(verdict="up")), Exists(votes.filter(verdict="down")), vote_count__gt=1
    ).update(contested=True)
    adapters = Completion.objects.filter(version__contains="@").order_by("version")
    for version in adapters.values_list("version", flat=True).distinct():
        number = version.rpartition("@")[2]
        if number.isdecimal() and len(number) < 10:
            Completion.objects.filter(version=version).update(version_number=int(number))


class Migration(migrations.Migration):
    dependencies = [("feedback", "0005_queue_columns")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
