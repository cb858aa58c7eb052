"""A report and a run without a group, by the real trainer on the tiny model."""

from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.influence.services import (
    influence_cancel,
    influence_claim,
    influence_execute,
    influence_request,
    run_without,
)
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Adapter, InfluenceReport, Run
from feedback_app.training.registry.files import adapter_publish
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.inputs import prepare
from feedback_app.training.runs.execution.jobs import job_run
from feedback_app.training.runs.execution.storage import RunFiles
from feedback_app.training.runs.services import run_request
from feedback_app.training.sweeps.probes import validation_loss
from tests.conftest import MakeCompletions
from tests.stacks import TINY

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def trained(run: Run) -> Adapter:
    """Train as a worker does and register the version without the gate."""
    claim = run_claim(run.pk)
    assert claim is not None
    with claim.kept_alive() as alive:
        files = RunFiles(claim, alive=alive)
        files.begin()
        prepare(claim.row)
        end = job_run(claim, ProcessLauncher(), "train", run.directory, alive=alive, files=files)
    assert end.code == 0, end.output
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    name = run.project.adapter_name(run.number)
    path, sha256 = adapter_publish(run.directory / "adapter", name=name)
    return Adapter.objects.create(project=run.project, run=run, name=name, path=path, sha256=sha256)


@pytest.fixture
def adapter(
    voted_project: Project,
    admin: User,
    second_annotator: User,
    make_completions: MakeCompletions,
    settings: Settings,
    tmp_path: Path,
) -> Adapter:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    make_tiny_model(tmp_path / "models" / TINY)
    # more validation examples than the sixty votes give by the usual share
    Project.objects.filter(pk=voted_project.pk).update(
        base_model=TINY, max_tokens=8, person_share=100
    )
    answers = voted_project.completions.order_by("pk")
    prompts = [each.prompt for each in answers.select_related("prompt")[:30:2]]
    for prompt in prompts:
        prompt.split = "validation"
        prompt.save(update_fields=["split"])
    project = Project.objects.get(pk=voted_project.pk)
    # answers that he alone has judged, and some that others judged as he does
    own = [answer for answer in make_completions(16) if answer.prompt.split == "train"]
    assert len(own) > 4
    for completion in [*own, *answers.exclude(prompt__split="test")[:30]]:
        vote_cast(
            completion=completion, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
        )
    config = RunConfig(epochs=1, batch_size=4, kl_brake=None)
    return trained(run_request(project=project, by=admin, config=config))


@pytest.mark.long
def test_report_ranks_groups_and_a_run_without_one_is_measured(
    adapter: Adapter, admin: User, second_annotator: User
) -> None:
    report = influence_request(adapter=adapter, by=admin)
    claim = influence_claim(adapter.pk)
    assert claim is not None

    influence_execute(claim, ProcessLauncher())

    report.refresh_from_db()
    assert report.status == "done", report.error
    people = report.result["groups"]["person"]
    assert str(second_annotator.pk) in {group["key"] for group in people}
    assert any(group["estimate"] != 0 for group in people)
    assert report.result["measured"] == adapter.run.snapshot.train_total
    assert report.result["validation_examples"] >= 8
    assert report.result["points"][-1].startswith("step ")
    assert not (adapter.run.directory / "influence").exists(), "it held answers"
    adapter.run.refresh_from_db()
    assert validation_loss(adapter.run) is not None

    report.adapter = adapter
    key = str(second_annotator.pk)
    run = run_without(report=report, kind="person", key=key, by=admin)
    again = trained(run)

    run.refresh_from_db()
    assert validation_loss(run) is not None
    assert validation_loss(run) != validation_loss(adapter.run)
    assert again.sha256 != adapter.sha256
    lines = [(each.directory / "validation.jsonl").read_bytes() for each in (run, adapter.run)]
    assert lines[0] == lines[1], "both are measured on the same validation votes"


@pytest.mark.long
def test_failure_says_why_and_can_be_tried_again(adapter: Adapter, admin: User) -> None:
    influence_request(adapter=adapter, by=admin)
    adapter.run.snapshot.items.filter(split="validation").delete()
    claim = influence_claim(adapter.pk)
    assert claim is not None

    influence_execute(claim, ProcessLauncher())

    report = InfluenceReport.objects.get()
    assert report.status == "failed"
    assert "too few validation examples" in report.error.lower()
    assert influence_request(adapter=adapter, by=admin).status == "queued"


@pytest.mark.long
def test_cancelled_report_ends_without_a_result(adapter: Adapter, admin: User) -> None:
    report = influence_request(adapter=adapter, by=admin)
    claim = influence_claim(adapter.pk)
    assert claim is not None
    influence_cancel(report=report, by=admin)

    influence_execute(claim, ProcessLauncher())

    report.refresh_from_db()
    assert (report.status, report.result) == ("cancelled", None)
