"""What the trainer's processes get to read, and when."""

import json
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Probe, Project, Split
from feedback_app.feedback.probes.services import probe_add
from feedback_app.training.gate.evaluation import Look, evaluation_write
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.inputs import prepare
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.services import run_request

pytestmark = pytest.mark.django_db

#: Runs at the start of each Python process: it logs the files that the process opens.
HOOK = """
import os, sys

log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        command = next((c for c in ("train", "evaluate") if c in sys.orig_argv), "other")
        os.write(log, f"{{command}} {{os.path.abspath(os.fsdecode(arguments[0]))}}\\n".encode())


sys.addaudithook(hook)
"""


@pytest.fixture
def wide(project: Project) -> Project:
    """A project with enough validation prompts among sixty to choose an adapter by."""
    project.validation_percent, project.max_tokens = 30, 8
    project.save()
    return project


@pytest.fixture
def run(wide: Project, voted_project: Project, admin: User, settings: Settings, root: Path) -> Run:
    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = root / "models", root / "artifacts"
    config = RunConfig(epochs=1, batch_size=8, kl_brake=10)
    return run_request(project=voted_project, by=admin, config=config)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def questions(run: Run, split: Split) -> set[str]:
    """Return the texts of the prompts of a split, as they are in files."""
    items = run.snapshot.items.filter(split=split).select_related("completion__prompt")
    return {item.completion.prompt.messages[-1]["content"] for item in items}


def found_in(files: set[Path], texts: set[str]) -> set[Path]:
    """Return the files that contain one of the texts."""
    return {
        path
        for path in files
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts)
    }


@pytest.mark.slow
@pytest.mark.long
def test_training_opens_no_file_with_a_test_prompt(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    make_tiny_model(root / "models" / run.project.base_model)
    hook = root / "hook"
    hook.mkdir()
    log = hook / "opened"
    (hook / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
    monkeypatch.setenv("PYTHONPATH", str(hook))
    test = questions(run, Split.TEST)
    assert len(test) == 12
    claim = run_claim(run.pk)
    assert claim is not None

    run_execute(claim, ProcessLauncher())

    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
    opened: dict[str, set[Path]] = {"train": set(), "evaluate": set(), "other": set()}
    for line in log.read_text().splitlines():
        command, name = line.split(" ", 1)
        if Path(name).is_relative_to(root):
            opened[command].add(Path(name))
    read = {run.directory / name for name in ("examples.jsonl", "validation.jsonl")}
    assert read <= opened["train"]
    assert found_in(opened["train"], test) == set()
    judged = {run.directory / "evaluation" / name for name in ("test.jsonl", "prompts.jsonl")}
    assert judged <= found_in(opened["evaluate"], test)
    # the validation split is what chose the adapter
    events = map(json.loads, (run.directory / "events.jsonl").read_text().splitlines())
    probes = [event for event in events if event["type"] == "probe"]
    assert probes
    assert all(probe["validation_loss"] is not None for probe in probes)


@pytest.mark.slow
@pytest.mark.long
def test_finished_run_has_answered_the_probes_of_its_project(
    run: Run, root: Path, admin: User
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    make_tiny_model(root / "models" / run.project.base_model)
    kept, broken = (
        probe_add(
            project=run.project,
            messages=[{"role": "user", "content": "What does it cost?"}],
            kind=kind,
            pattern="nothing like this is in the answers",
            by=admin,
        )
        for kind in (Probe.Kind.LACKS, Probe.Kind.MATCHES)
    )
    claim = run_claim(run.pk)
    assert claim is not None

    run_execute(claim, ProcessLauncher())

    adapter = run.project.adapters.get()
    found = {entry["id"]: entry["answers"] for entry in adapter.report["probes"]}
    assert set(found) == {str(kept.pk), str(broken.pk)}
    for version in (adapter.name, "base"):
        assert {answer["kept"] for answer in found[str(kept.pk)][version]} == {True}
        assert {answer["kept"] for answer in found[str(broken.pk)][version]} == {False}
    (rule,) = [rule for rule in adapter.gate["rules"] if rule["key"] == "probes"]
    assert (rule["outcome"], rule["text"]) == ("passed", "1 of 2 kept; the base kept 1")


def test_test_split_is_written_after_training_only(run: Run) -> None:
    test = questions(run, Split.TEST)
    prepare(run)
    files = {path for path in run.directory.rglob("*") if path.is_file()}
    assert {path.name for path in files} == {"config.json", "examples.jsonl", "validation.jsonl"}
    assert found_in(files, test) == set()
    for split, name in ((Split.TRAIN, "examples.jsonl"), (Split.VALIDATION, "validation.jsonl")):
        assert found_in(files, questions(run, split)) == {run.directory / name}

    evaluation = evaluation_write(run, Look(40), base_model="model")

    written = {evaluation / "test.jsonl", evaluation / "prompts.jsonl"}
    assert found_in(set(run.directory.rglob("*")), test) == written
    others = questions(run, Split.TRAIN) | questions(run, Split.VALIDATION)
    assert found_in(written, others) == set()

    # the evaluation was interrupted, and the run is attempted again
    prepare(run)
    assert not (evaluation / "test.jsonl").exists()


def test_run_of_the_version_before_starts_over(run: Run) -> None:
    prepare(run)
    held = run.directory / "heldout.jsonl"
    (run.directory / "validation.jsonl").rename(held)
    (run.directory / "events.jsonl").write_text("{}\n")
    for name in ("adapter", "checkpoints", "evaluation"):
        (run.directory / name).mkdir()
        (run.directory / name / "file").write_text("chosen by test examples")

    prepare(run)

    assert {path.name for path in run.directory.iterdir()} == {
        "config.json",
        "events.jsonl",
        "examples.jsonl",
        "validation.jsonl",
    }
    # what the run trains on now is left alone
    (run.directory / "checkpoints").mkdir()
    prepare(run)
    assert (run.directory / "checkpoints").exists()


def test_run_shares_its_base_as_when_it_began(run: Run, settings: Settings) -> None:
    settings.TRAINER_FSDP = True
    prepare(run)
    config = (run.directory / "config.json").read_bytes()
    assert json.loads(config)["fsdp"] is True
    # a checkpoint fits only the configuration that it was made with
    settings.TRAINER_FSDP = False
    prepare(run)
    assert (run.directory / "config.json").read_bytes() == config
