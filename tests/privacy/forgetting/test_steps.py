"""After an erasure: the live version is trained again without it, and the others are deleted."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Completion, Example, Project, Source, Verdict
from feedback_app.feedback.votes.corrections import vote_cast_corrected
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.privacy.erasure import person_erase
from feedback_app.privacy.example_erasure import example_erase
from feedback_app.privacy.forgetting.links import erasure_link
from feedback_app.privacy.forgetting.services import project_forget
from feedback_app.privacy.tasks import dispatch, forget
from feedback_app.serving.models import Release, TrafficSplit
from feedback_app.serving.releases.selectors import adapters_to_release
from feedback_app.serving.releases.services import release_flip, release_promote
from feedback_app.training.forgetting.selectors import Forgetting, forgettings
from feedback_app.training.gate.evaluation import Look, evaluation_write
from feedback_app.training.models import Adapter, Erasure, Run
from feedback_app.training.registry.services import adapter_restore
from feedback_app.training.runs.services import run_request
from feedback_app.training.schedules.selectors import next_run
from feedback_app.web.errors import NotFound, UserError
from tests.browser.world import claimed, finish
from tests.faults.test_erase import erase_me

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
As = Callable[[User], Client]


@pytest.fixture(autouse=True)
def artifacts(settings: Settings, tmp_path: Path) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    settings.ENGINE_URL = "http://127.0.0.1:9"  # nothing listens there
    settings.ENGINES = {"SmolLM2-135M-Instruct": "http://127.0.0.1:9"}


@pytest.fixture
def bob(
    voted_project: Project,
    second_annotator: User,
    make_completions: Callable[..., list[Completion]],
) -> User:
    """A person with six votes of his own beside those of the annotator."""
    # no cap: it would leave out other votes beside his than without them
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    voted_project.refresh_from_db()
    for completion in make_completions(6):
        vote_cast(
            completion=completion, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
        )
    return second_annotator


def trained(run: Run, *, up: float = 0.8) -> Adapter:
    """End a queued run with a version, with files."""
    adapter = finish(claimed(run), up=up)
    for directory in (adapter.directory, run.directory):
        directory.mkdir(parents=True)
        (directory / "weights").write_text("x")
    return adapter


def make_live(adapter: Adapter | None, project: Project) -> None:
    release_flip(
        project=project,
        adapter=adapter,
        before=project.releases.filter(live=True).first(),
        by=None,
        reason="",
    )


@pytest.fixture
def live(voted_project: Project, admin: User, bob: User) -> Adapter:
    """The live version, which learned from Bob."""
    adapter = trained(run_request(project=voted_project, by=admin))
    make_live(adapter, voted_project)
    return adapter


def erased(user: User, project: Project, admin: User) -> Erasure:
    [erasure] = person_erase(user=user, by=admin, project=project)
    assert erasure.due_at is not None
    return erasure


def state(erasure: Erasure) -> Forgetting:
    erasure.refresh_from_db()
    [found] = forgettings(Project.objects.get(pk=erasure.project_id), [erasure])
    return found


def deadline_passes(erasure: Erasure) -> None:
    Erasure.objects.filter(pk=erasure.pk).update(due_at=timezone.now() - dt.timedelta(minutes=1))
    project_forget(erasure.project_id)


def test_live_version_is_replaced_by_one_without_the_person_and_deleted(
    live: Adapter, voted_project: Project, admin: User, bob: User
) -> None:
    erasure = erased(bob, voted_project, admin)
    assert (erasure.runs, state(erasure).code) == ([1], "waiting")
    assert dt.timedelta(days=29) < erasure.due_at - timezone.now() < dt.timedelta(days=31)

    project_forget(voted_project.pk)
    project_forget(voted_project.pk)

    [again] = voted_project.runs.filter(retrains=live.run)
    assert (again.config, again.trigger, again.auto_release) == (live.run.config, "erasure", True)
    assert again.snapshot.items.count() == live.run.snapshot.items.count() == 60
    assert state(erasure).code == "training"
    live.refresh_from_db()
    assert live.locked_at is None, "it answers until it is replaced"

    better = trained(again)
    assert better.gate["opponent"] == "base"
    assert state(erasure).code == "releasing"
    assert list(adapters_to_release()) == [better]
    make_live(better, voted_project)
    project_forget(voted_project.pk)

    live.refresh_from_db()
    assert live.locked_at
    assert state(erasure).code == "replaced"
    with pytest.raises(UserError, match="it is locked"):
        adapter_restore(adapter=live, by=admin)
    with pytest.raises(UserError, match="it is locked"):
        release_promote(project=voted_project, adapter=live, by=admin, reason="Back")
    assert live.directory.exists()

    deadline_passes(erasure)

    live.refresh_from_db()
    assert (live.deleted_at is not None, live.report) == (True, {})
    assert not live.directory.exists()
    assert not live.run.directory.exists()
    assert better.directory.exists()
    assert voted_project.releases.get(live=True).adapter == better
    assert state(erasure).code == "deleted"
    actions = AuditEvent.objects.filter(target=live.name).values_list("action", flat=True)
    assert {"adapter.lock", "adapter.delete"} <= set(actions)


def test_gate_of_a_run_after_an_erasure_compares_with_the_base(
    live: Adapter, voted_project: Project, admin: User, bob: User
) -> None:
    erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    again = voted_project.runs.get(retrains=live.run)
    again.directory.mkdir(parents=True)
    directory = evaluation_write(again, Look(1), base_model="x")
    compared = json.loads((directory / "evaluate.json").read_text())["candidates"]
    assert [each["name"] for each in compared] == ["bot@2", "base"]


def test_base_goes_live_at_the_deadline_if_the_gate_is_not_passed(
    live: Adapter, voted_project: Project, admin: User, bob: User, as_user: As
) -> None:
    erasure = erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    other = trained(voted_project.runs.get(retrains=live.run), up=0.45)
    assert not adapters_to_release().exists()
    found = state(erasure)
    assert (found.code, found.falls_back) == ("gate", True)
    # said before it happens
    for page in ("runs", "releases", "erasures"):
        text = as_user(admin).get(reverse(page, args=["bot"])).content.decode()
        assert "the base model replaces the live version on" in text, page

    deadline_passes(erasure)

    release = voted_project.releases.get(live=True)
    assert (release.version, release.released_by) == ("base", None)
    assert release.reason.startswith("The version had learned from what was erased")
    live.refresh_from_db()
    other.refresh_from_db()
    assert live.deleted_at
    assert (other.locked_at, other.deleted_at) == (None, None)
    assert state(erasure).code == "deleted"


def test_too_few_examples_are_said_and_the_base_goes_live(
    live: Adapter, voted_project: Project, admin: User, annotator: User
) -> None:
    erasure = erased(annotator, voted_project, admin)
    project_forget(voted_project.pk)
    assert not voted_project.runs.filter(retrains=live.run).exists()
    found = state(erasure)
    assert found.code == "refused"
    assert found.sentence.startswith("Too few examples are left")
    assert "needs at least" in erasure.problem
    deadline_passes(erasure)
    assert state(erasure).code == "deleted"
    assert voted_project.releases.get(live=True).adapter is None


def test_failed_run_is_said_and_another_run_is_waited_for(
    live: Adapter, voted_project: Project, admin: User, bob: User
) -> None:
    other = run_request(project=voted_project, by=admin)
    erasure = erased(bob, voted_project, admin)
    assert erasure.runs == [1, 2]
    project_forget(voted_project.pk)
    assert not voted_project.runs.filter(trigger="erasure").exists()
    Run.objects.filter(pk=other.pk).update(status=Run.Status.FAILED)
    project_forget(voted_project.pk)
    again = voted_project.runs.get(trigger="erasure")
    Run.objects.filter(pk=again.pk).update(status=Run.Status.FAILED)
    project_forget(voted_project.pk)
    assert voted_project.runs.filter(trigger="erasure").count() == 1
    assert (state(erasure).code, state(erasure).falls_back) == ("failed", True)


def test_versions_that_a_version_was_started_from_are_trained_again_first(
    live: Adapter, voted_project: Project, admin: User, bob: User
) -> None:
    second = run_request(project=voted_project, by=admin)
    second.config |= {"start_adapter": f"../../{live.path}"}
    second.save()
    make_live(trained(second), voted_project)
    erasure = erased(bob, voted_project, admin)

    project_forget(voted_project.pk)
    first_again = voted_project.runs.get(retrains=live.run)
    assert not first_again.auto_release
    adapter = trained(first_again)
    project_forget(voted_project.pk)

    second_again = voted_project.runs.get(retrains=second)
    assert second_again.config["start_adapter"] == f"../../{adapter.path}"
    assert second_again.auto_release
    make_live(trained(second_again), voted_project)
    project_forget(voted_project.pk)
    assert state(erasure).code == "replaced"
    assert state(erasure).versions == ["bot@1", "bot@2"]


def test_second_erasure_discards_a_version_that_was_trained_again_with_it(
    live: Adapter,
    voted_project: Project,
    admin: User,
    bob: User,
    viewer: User,
    make_completions: Callable[..., list[Completion]],
) -> None:
    for completion in voted_project.completions.order_by("pk")[:3]:
        vote_cast(completion=completion, verdict=Verdict.UP, by=viewer, source=Source.ANNOTATE)
    version = trained(run_request(project=voted_project, by=admin))
    make_live(version, voted_project)
    first = erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    again = trained(voted_project.runs.get(retrains=version.run))
    second = erased(viewer, voted_project, admin)
    assert again.run.number in second.runs

    project_forget(voted_project.pk)

    again.refresh_from_db()
    assert again.locked_at
    assert voted_project.runs.filter(retrains=version.run).count() == 2
    assert {state(first).code, state(second).code} == {"training"}


def test_split_with_a_locked_candidate_ends(
    live: Adapter, voted_project: Project, admin: User, bob: User
) -> None:
    make_live(None, voted_project)
    TrafficSplit.objects.create(
        project=voted_project, candidate=live, live_version="base", percent=20
    )
    erasure = erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    assert TrafficSplit.objects.get().status == "stopped"
    assert state(erasure).code == "replaced"


def test_run_after_an_erasure_takes_no_new_examples_from_the_schedule(
    live: Adapter,
    voted_project: Project,
    admin: User,
    bob: User,
    make_completions: Callable[..., list[Completion]],
) -> None:
    [fresh] = make_completions(1)
    vote_cast(completion=fresh, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)
    erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    waiting = next_run(voted_project)
    assert waiting.active == voted_project.runs.get(trigger="erasure")
    assert waiting.new_examples == 1


def test_example_is_erased_from_examples_and_snapshots(
    live: Adapter, voted_project: Project, admin: User, annotator: User, as_user: As
) -> None:
    item = live.run.snapshot.items.order_by("pk")[0]
    path = reverse("completion-erase", args=["bot", item.completion_id])
    assert as_user(annotator).post(path).status_code == 403

    text = as_user(admin).post(path, follow=True).content.decode()

    assert f"Answer {item.completion_id}" in text
    assert not live.run.snapshot.items.filter(pk=item.pk).exists()
    assert not Completion.objects.filter(pk=item.completion_id).exists()
    erasure = Erasure.objects.get()
    assert (erasure.completion, erasure.votes, erasure.runs) == (item.completion_id, 1, [1])
    project_forget(voted_project.pk)
    assert state(erasure).code == "training"


def test_correction_of_an_erased_answer_is_erased_with_it(
    live: Adapter, voted_project: Project, admin: User, annotator: User
) -> None:
    item = live.run.snapshot.items.filter(desirable=False).order_by("pk")[0]
    original = Completion.objects.select_related("project", "prompt").get(pk=item.completion_id)
    vote_cast_corrected(
        completion=original,
        correction="The same name, in better words.",
        verdict=Verdict.DOWN,
        by=annotator,
        source=Source.ANNOTATE,
    )
    written = Completion.objects.get(version="edited")

    erasure = example_erase(completion=original, by=admin)

    assert not Completion.objects.filter(pk__in=[original.pk, written.pk]).exists()
    assert not Example.objects.filter(pk=written.pk).exists()
    assert (erasure.votes, erasure.examples_gone, erasure.runs) == (2, 2, [1])
    with pytest.raises(NotFound, match="erased already"):
        example_erase(completion=original, by=admin)
    assert Erasure.objects.count() == 1


def test_dispatch_sends_projects_with_pending_erasures(
    live: Adapter, voted_project: Project, admin: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int]] = []
    monkeypatch.setattr(forget, "apply_async", lambda args, **_: sent.append(args))
    dispatch()
    erased(bob, voted_project, admin)
    dispatch()
    assert sent == [(voted_project.pk,)]
    forget(voted_project.pk)
    assert voted_project.runs.filter(trigger="erasure").exists()


# -- pages


def test_person_follows_the_state_by_a_link_without_an_account(
    live: Adapter, voted_project: Project, bob: User, as_user: As
) -> None:
    answer = erase_me(as_user(bob), bob.email)

    path = answer["Location"]
    erasure = Erasure.objects.get()
    assert path.startswith("/erasures/")
    page = Client().get(path)
    text = page.content.decode()
    assert "The live version is going to be trained again without it." in text
    assert "bob@example.com" not in text
    deadline_passes(erasure)
    assert "are deleted" in Client().get(path).content.decode()
    for forged in (f"{path[:-2]}x/", "/erasures/no-such-secret/"):
        assert Client().get(forged).status_code == 404


def test_admins_see_all_erasures_in_a_fixed_number_of_queries(
    live: Adapter,
    voted_project: Project,
    admin: User,
    bob: User,
    viewer: User,
    annotator: User,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    erasure = erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    person_erase(user=viewer, by=admin, project=voted_project)
    client = as_user(admin)

    with django_assert_max_num_queries(11):
        text = client.get(reverse("erasures", args=["bot"])).content.decode()

    assert f"Person {erasure.person}" in text
    assert "The live version is being trained again without it." in text
    assert "No version had learned from it." in text
    assert erasure_link([erasure]).split(":")[0] in text
    assert as_user(annotator).get(reverse("erasures", args=["bot"])).status_code == 403


def test_pages_of_a_locked_version_offer_neither_restore_nor_download(
    live: Adapter, voted_project: Project, admin: User, bob: User, as_user: As
) -> None:
    make_live(None, voted_project)
    erased(bob, voted_project, admin)
    project_forget(voted_project.pk)
    client = as_user(admin)
    text = client.get(reverse("run", args=["bot", 1])).content.decode()
    assert "It is locked, and will be" in text
    download = reverse("adapter-download", args=["bot", live.name])
    assert download not in text
    assert client.get(download).status_code == 400
    assert Release.objects.filter(adapter=live).exists()
