"""A run that is trained again from its snapshot."""

from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Split
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.launchers.base import Job, LaunchError
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.management.commands.reproduce import Command
from feedback_app.training.models import Adapter, Run
from feedback_app.training.reproduction.services import Reproduction, run_reproduce
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.services import run_request
from feedback_app.training.snapshots.files import split_write
from tests.stacks import TINY
from tests.training.gate.reports import SMALL_GATE

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def run(voted_project: Project, admin: User, settings: Settings, tmp_path: Path) -> Run:
    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    Project.objects.filter(pk=voted_project.pk).update(base_model=TINY, max_tokens=8)
    project = Project.objects.get(pk=voted_project.pk)
    gate_settings_save(project=project, settings=SMALL_GATE, by=admin)
    return run_request(project=project, by=admin, config=RunConfig(epochs=1, kl_brake=None))


def reproduced(run: Run) -> str:
    out = StringIO()
    call_command("reproduce", run.project.slug, str(run.number), stdout=out)
    return out.getvalue()


@pytest.mark.long
def test_run_gives_the_same_bytes_again_and_changed_ones_are_found(
    run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    make_tiny_model(tmp_path / "models" / TINY)
    claim = run_claim(run.pk)
    assert claim is not None
    run_execute(claim, ProcessLauncher())
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
    adapter = Adapter.objects.get()

    said = reproduced(run)

    assert f"the same adapter, SHA-256 {adapter.sha256}" in said
    assert not list((tmp_path / "artifacts" / "runs").glob("*-again"))

    Adapter.objects.filter(pk=adapter.pk).update(sha256="0" * 64)
    with pytest.raises(CommandError, match=r"another adapter.*differ by 0\.00% at most"):
        reproduced(run)

    Adapter.objects.filter(pk=adapter.pk).update(sha256=adapter.sha256)
    run.snapshot.items.filter(split="train").first().delete()
    with pytest.raises(CommandError, match="erased or changed since"):
        reproduced(run)


@pytest.mark.parametrize(
    ("again", "device", "difference", "same"),
    [
        ("a", "cpu", 0.0, True),
        ("b", "cuda:0", 0.03, True),
        ("b", "cuda:0", 0.06, False),
        ("b", "cuda:0", None, False),
        ("b", "cpu", 0.01, False),
    ],
)
def test_other_bytes_are_accepted_on_a_gpu_with_losses_within_the_tolerance(
    run: Run, again: str, device: str, difference: float | None, same: bool
) -> None:
    out = StringIO()
    found = Reproduction("a", again, difference, device, device)
    with nullcontext() if same else pytest.raises(CommandError, match="another adapter"):
        Command(stdout=out).report(run, found)
    assert ("within 5%" in out.getvalue()) == (same and again == "b")


class Refusing(ProcessLauncher):
    """Takes no job; keeps the names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def submit(self, job: Job) -> str:
        self.names.append(job.name)
        raise LaunchError("no job here")


def test_each_attempt_has_another_name(run: Run, tmp_path: Path) -> None:
    run.snapshot.sha256 = split_write(run.snapshot, Split.TRAIN, tmp_path / "examples.jsonl")
    run.snapshot.save()
    Adapter.objects.create(project=run.project, run=run, name="bot@1", path="adapters/bot@1")
    launcher = Refusing()
    for _ in range(2):
        with pytest.raises(LaunchError):
            run_reproduce(run, launcher, progress=lambda done, total: None)
    assert len(set(launcher.names)) == 2


def test_run_without_an_adapter_cannot_be_compared(run: Run) -> None:
    with pytest.raises(CommandError, match="has made no adapter"):
        reproduced(run)


def test_unknown_run_is_named(run: Run) -> None:
    with pytest.raises(CommandError, match="bot has no run 9"):
        call_command("reproduce", "bot", "9")
