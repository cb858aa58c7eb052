"""A real engine on a tiny model, and a project whose adapters it can load."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.feedback.models import Project
from feedback_app.serving.engine.client import Sampling
from feedback_app.training.models import Adapter, Run, Snapshot
from feedback_app.training.registry.files import manifest_check
from tests.engines import RunningEngine, run_engine

MODEL = "tiny"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    root = tmp_path_factory.mktemp("engine")
    model = make_tiny_model(root / MODEL)
    with run_engine(model, root / "artifacts", served_name=MODEL) as running:
        yield running


@pytest.fixture
def served(project: Project, engine: RunningEngine, settings: Settings) -> Project:
    """The project, with the engine's base model."""
    settings.ENGINES = {MODEL: engine.url}
    settings.ARTIFACT_ROOT = engine.artifacts
    project.base_model = MODEL
    project.max_tokens = 24
    project.temperature = 0  # a sampled answer may be empty
    project.save()
    return project


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit answers: the tiny model seldom stops, and three long answers would fill its context."""
    short = Sampling(max_tokens=12, temperature=0.8, top_p=0.95)
    monkeypatch.setattr("feedback_app.serving.demo.generation.demo_sampling", lambda project: short)


MakeAdapter = Callable[..., Adapter]


@pytest.fixture
def make_adapter(served: Project, engine: RunningEngine) -> MakeAdapter:
    """`make_adapter(3)`: version 3 of the project, with real weights on disk."""

    def make(number: int, *, gate_won: bool = True, auto_release: bool = False) -> Adapter:
        name = served.adapter_name(number)
        relative = Path("adapters") / name
        write_adapter_once(engine, engine.artifacts / relative, name, seed=number)
        run = Run.objects.create(
            project=served,
            number=number,
            snapshot=Snapshot.objects.create(
                project=served, train_up=1, train_down=1, test_up=1, test_down=1
            ),
            trigger=Run.Trigger.PERSON,
            status=Run.Status.SUCCEEDED,
            auto_release=auto_release,
        )
        manifest = manifest_check(engine.artifacts / relative, name=name)
        return Adapter.objects.create(
            project=served,
            run=run,
            name=name,
            path=str(relative),
            sha256=manifest["files"]["adapter_model.safetensors"],
            gate_won=gate_won,
            gate={"rules": [], "won": gate_won},
        )

    return make


def write_adapter_once(engine: RunningEngine, directory: Path, name: str, *, seed: int) -> None:
    """Write an adapter once per name: the engine keeps loaded adapters across tests."""
    from tests.tiny import make_tiny_adapter
    from trainer.models.loading import load_base

    if not directory.exists():
        base = load_base(str(engine.model), dtype="float32", device="cpu")
        directory.parent.mkdir(parents=True, exist_ok=True)
        make_tiny_adapter(directory, base, name=name, seed=seed)
