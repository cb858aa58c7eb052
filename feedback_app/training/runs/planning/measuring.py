"""Measuring what the memory of a project's runs depends on: by a worker that trains."""

import heapq
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db.models import QuerySet

from feedback_app.feedback.figures.services import figures_due
from feedback_app.feedback.models import Example, Project, Split
from feedback_app.training.launchers.accelerate import process_count
from feedback_app.training.launchers.base import LaunchError
from feedback_app.training.launchers.selection import launcher_name
from feedback_app.training.runs.config import chat_settings
from feedback_app.training.runs.execution.inputs import model_path, write_json
from feedback_app.training.runs.planning.memory import NAME
from feedback_app.training.snapshots.files import some_examples_write

log = structlog.get_logger(__name__)

#: Training examples that are looked at, the newest, and those of them that are measured.
MOST, LONGEST = 20_000, 128
SECONDS = 600.0


def memory_due(*, resend: float) -> Iterator[int]:
    """Yield the measurements to send a message for: of each one in `resend` seconds, as workers
    may be training for hours."""
    for pk in figures_due(NAME).values_list("pk", flat=True):
        if cache.add(f"training:memory:{pk}", 1, resend):
            yield pk


def memory_measure(project: Project) -> dict[str, Any]:
    """Return the base model and the numbers of `python -m trainer plan --footprint` on this worker;
    none of them where it cannot tell, such as for a cluster."""
    try:
        found = footprint(project)
    except (LaunchError, OSError, ValueError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        log.warning("memory_unknown", project=project.slug, error=why.strip()[-500:])
        found = {}
    return {"base_model": project.base_model, "footprint": found}


def footprint(project: Project) -> dict[str, Any]:
    launcher = launcher_name(project)
    if launcher == "ray":
        return {}
    devices = process_count() if launcher == "accelerate" else 1
    with tempfile.TemporaryDirectory(prefix="prospect-memory-") as name:
        examples, config = Path(name) / "examples.jsonl", Path(name) / "config.json"
        some_examples_write(longest_examples(project), examples)
        write_json(config, chat_settings(project) | {"fsdp": bool(settings.TRAINER_FSDP)})
        command = [sys.executable, "-m", "trainer", "plan", "--footprint"]
        command += ["--model", model_path(project.base_model), "--examples", str(examples)]
        command += ["--config", str(config), "--devices", str(devices)]
        done = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def longest_examples(project: Project) -> QuerySet[Example]:
    """Return the longest of the newest training examples, by characters."""
    rows = project.examples.filter(split=Split.TRAIN).order_by("-created_at", "-completion")
    fields = ("completion", "completion__prompt__messages", "completion__text")
    read = rows.values_list(*fields)[:MOST].iterator(chunk_size=500)
    sizes = ((len(text) + len(json.dumps(messages)), pk) for pk, messages, text in read)
    longest = [pk for _, pk in heapq.nlargest(LONGEST, sizes)]
    return project.examples.filter(completion__in=longest)
