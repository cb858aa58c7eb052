"""A version that was trained again after an erasure has the bytes of one that never had the
person."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.privacy.erasure import person_erase
from feedback_app.privacy.forgetting.services import project_forget
from feedback_app.serving.releases.services import release_flip
from feedback_app.training.launchers.base import DONE, Job
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Adapter, Run
from feedback_app.training.registry.files import adapter_publish
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.inputs import prepare
from feedback_app.training.runs.services import run_request
from tests.stacks import TINY

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def trained(run: Run) -> Adapter:
    """Write a queued run's input and train, as a worker does, and register the version without
    the gate, which changes no byte of it."""
    prepare(run)
    launcher = ProcessLauncher()
    job = launcher.submit(Job(name=f"run-{run.pk}", command="train", directory=run.directory))
    try:
        while (code := launcher.poll(job)) is None:
            time.sleep(0.2)
    finally:
        launcher.end(job)
    assert code == DONE, launcher.logs(job)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    name = run.project.adapter_name(run.number)
    path, sha256 = adapter_publish(run.directory / "adapter", name=name)
    return Adapter.objects.create(project=run.project, run=run, name=name, path=path, sha256=sha256)


@pytest.mark.long
def test_retrained_version_has_the_bytes_of_one_without_the_person(
    voted_project: Project,
    admin: User,
    second_annotator: User,
    make_completions: Callable[..., list[Completion]],
    settings: Settings,
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    make_tiny_model(tmp_path / "models" / TINY)
    Project.objects.filter(pk=voted_project.pk).update(
        base_model=TINY, max_tokens=8, person_share=100
    )
    project = Project.objects.get(pk=voted_project.pk)
    config = RunConfig(epochs=1, kl_brake=None)
    never = trained(run_request(project=project, by=admin, config=config))
    # examples of Bob's own, and answers that he and the annotator do not agree on
    judged = [*make_completions(12), *project.completions.order_by("pk")[:10]]
    for completion in judged:
        vote_cast(
            completion=completion, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
        )
    with_bob = trained(run_request(project=project, by=admin, config=config))
    release_flip(project=project, adapter=with_bob, before=None, by=admin, reason="Try it")

    person_erase(user=second_annotator, by=None)
    project_forget(project.pk)
    again = trained(project.runs.get(retrains=with_bob.run))

    assert with_bob.sha256 != never.sha256
    for name in ("examples.jsonl", "validation.jsonl"):
        assert (again.run.directory / name).read_bytes() == (
            never.run.directory / name
        ).read_bytes()
    assert again.run.snapshot.sha256 == never.run.snapshot.sha256
    weights = [
        (adapter.directory / "adapter_model.safetensors").read_bytes() for adapter in (again, never)
    ]
    assert weights[0] == weights[1]
