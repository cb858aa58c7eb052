"""Completions from before imports get their hash too, so that an import knows them."""

import hashlib
import json

from django.db import migrations

CHUNK = 500


def fill(apps, schema_editor):
    Completion = apps.get_model("feedback", "Completion")
    without = Completion.objects.filter(content_hash="").select_related("prompt").order_by("pk")
    while rows := list(without.defer("token_ids", "prompt_token_ids")[:CHUNK]):
        for row in rows:
            content = [row.prompt.content_hash, row.system_prompt, row.text]
            canonical = json.dumps(content, ensure_ascii=False)
            row.content_hash = hashlib.sha256(canonical.encode()).hexdigest()
        Completion.objects.bulk_update(rows, ["content_hash"], batch_size=100)


class Migration(migrations.Migration):
    dependencies = [("feedback", "0003_import_jobs")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
