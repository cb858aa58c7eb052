"""Snapshot, export and import of a whole project, each in a process of its own.

Rows per second, and the peak of the process's resident memory as the kernel reports it.
`python -m bench.scale_parts.transfers snapshot|project SLUG` is what such a process runs where no
management command does it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.scale_parts.shape import SLUG

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("jsonl", "csv", "parquet")


@dataclass(frozen=True)
class Transfer:
    """One transfer of `rows` rows; `peak` in MB."""

    what: str
    rows: int
    seconds: float
    peak: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def child(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MB, its own children's included."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.monotonic() - started, used.ru_maxrss / 1024


def transfers(
    environment: dict[str, str], directory: Path, rows: int, formats: list[str], imports: list[str]
) -> Iterator[Transfer]:
    """Take a snapshot, export the examples in each format, and import files into new projects."""
    module = ["-m", "bench.scale_parts.transfers"]
    yield Transfer("snapshot", rows, *child([*module, "snapshot"], environment))
    files = {kind: directory / f"examples.{kind}" for kind in formats}
    for kind, file in files.items():
        command = ["manage.py", "export_examples", "--project", SLUG, "--format", kind]
        yield Transfer(f"export, {kind}", rows, *child([*command, "--out", str(file)], environment))
    for kind in imports:
        child([*module, "project", f"copy-{kind}"], environment)
        command = ["manage.py", "import_examples", str(files[kind]), "--project", f"copy-{kind}"]
        yield Transfer(f"import, {kind}", rows, *child(command, environment))
    for file in files.values():
        file.unlink()


def main() -> None:
    import django

    django.setup()
    from feedback_app.accounts.models import User
    from feedback_app.feedback.models import Project
    from feedback_app.feedback.projects.services import project_create
    from feedback_app.training.models import Run
    from feedback_app.training.runs.execution.taking import snapshot_take
    from feedback_app.training.runs.services import run_request

    owner = User.objects.get(email="owner@example.com")
    if sys.argv[1] == "project":
        slug = sys.argv[2]
        project_create(slug=slug, name=slug, base_model="bench", owner=owner)
        return
    project = Project.objects.get(slug=SLUG)
    project.runs.active().update(status=Run.Status.CANCELLED)
    run = run_request(project=project, by=owner)
    snapshot_take(run.snapshot_id)


if __name__ == "__main__":
    main()
