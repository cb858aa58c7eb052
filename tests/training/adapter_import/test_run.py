"""An imported version from its two files to the gate, with the real trainer on a tiny model."""

import json
from pathlib import Path

import pytest
import torch
from pytest_django import Settings
from safetensors.torch import load_file, save_file

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.serving.lineage.selectors import version_lineage
from feedback_app.training.adapter_import.services import import_directory
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Adapter, Run
from feedback_app.training.registry.files import adapter_fetch
from feedback_app.training.reproduction.services import run_reproduce
from feedback_app.web.errors import UserError
from tests.tiny import make_tiny_adapter, make_tiny_model
from tests.training.executing import execute
from trainer.models.loading import load_base

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def foreign(tmp_path: Path, settings: Settings) -> Path:
    """A directory with an adapter of the project's base model, as PEFT writes it."""
    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    settings.TRAINER_NICE = 0
    model = make_tiny_model(settings.MODELS_ROOT / "SmolLM2-135M-Instruct")
    make_tiny_adapter(tmp_path / "foreign", load_base(str(model), device="cpu"))
    for name in ("manifest.json", "README.md"):
        (tmp_path / "foreign" / name).unlink()
    return tmp_path / "foreign"


@pytest.mark.long
def test_imported_version_is_judged_and_registered(
    small: Project, foreign: Path, admin: User
) -> None:
    run = execute(import_directory(project=small, by=admin, source=foreign))

    assert run.error == ""
    adapter = Adapter.objects.get(run=run)
    assert (adapter.name, run.status) == ("bot@1", Run.Status.SUCCEEDED)
    assert adapter.gate_outcome in ("passed", "failed", "undecided")
    assert adapter.report["answers"]
    manifest = json.loads((adapter_fetch(adapter) / "manifest.json").read_text())
    assert manifest["train"]["imported"]["sha256"]
    assert small.live_version == "base"
    # what was written for the evaluation is gone, and so is the upload
    assert not (run.directory / "examples.jsonl").exists()
    assert not (run.directory / "validation.jsonl").exists()
    assert not (run.directory / "evaluation" / "votes.jsonl").exists()
    assert not list((run.directory.parent.parent / "imported").iterdir())
    assert version_lineage(adapter).snapshot.train_total == 0
    with pytest.raises(UserError, match="no training to repeat"):
        run_reproduce(run, ProcessLauncher(), progress=lambda done, total: None)


def test_adapter_that_does_not_fit_the_base_ends_the_run_with_the_reason(
    small: Project, foreign: Path, admin: User
) -> None:
    weights = foreign / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file(tensors | {name: torch.zeros(tensors[name].shape[0], 99)}, weights)

    run = execute(import_directory(project=small, by=admin, source=foreign))

    assert run.status == Run.Status.FAILED
    assert "here it has" in run.error
    assert not Adapter.objects.exists()
