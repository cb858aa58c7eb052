"""Fault 28: a person is erased, and the effects of their votes are undone or named."""

import datetime as dt
import json
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.apps import apps
from django.contrib.auth import get_user
from django.core.serializers import serialize
from django.db import connection
from django.db.models.signals import pre_delete
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, Invitation, Membership, Role, Scope, User
from feedback_app.feedback.examples.rule import values_of_votes
from feedback_app.feedback.gold.pauses import pause_if_due, pause_lift
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.members.services import invitation_create, member_set
from feedback_app.feedback.models import (
    Completion,
    Example,
    Probe,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery
from feedback_app.feedback.probes.services import probe_add
from feedback_app.feedback.tokens.services import token_create, voter_of
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.privacy import votes as votes_erasing
from feedback_app.privacy.erasure import (
    erasure_claim,
    erasure_execute,
    erasures_begin,
    person_erase,
)
from feedback_app.privacy.example_erasure import example_erase
from feedback_app.privacy.tasks import dispatch, erase
from feedback_app.serving.conversation_log.removal import conversations_remove
from feedback_app.serving.models import Comparison, Conversation
from feedback_app.training.gate.report import comparisons
from feedback_app.training.models import Adapter, Erasure, Run, Snapshot, SnapshotItem
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.execution import taking
from feedback_app.training.runs.execution.taking import snapshot_take
from feedback_app.training.runs.services import run_finish, run_request
from feedback_app.training.runs.waiting import run_claim_next
from feedback_app.training.snapshots import services as freezing
from tests.browser.world import chat, said
from tests.conftest import PASSWORD, prompts_make
from tests.engines import PATIENCE
from tests.serving.conversation_log.world import talk
from tests.training.gate.reports import gate_report

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
As = Callable[[User], Client]
Make = Callable[..., list[Completion]]


def vote(completion: Completion, by: User, verdict: Verdict, source: Source = Source.ANNOTATE):
    vote_cast(completion=completion, verdict=verdict, by=by, source=source)


def examples_agree_with_votes() -> None:
    """Assert that every completion's example equals the one computed from its votes."""
    for completion in Completion.objects.prefetch_related("votes"):
        verdicts = [vote.verdict for vote in completion.votes.all()]
        amounts = values_of_votes(verdicts, text=completion.text)
        example = Example.objects.filter(completion=completion).first()
        assert completion.vote_count == len(verdicts)
        assert completion.contested == (len(set(verdicts)) > 1)
        assert (example is None) == (amounts is None)
        if example and amounts:
            assert (example.desirable, example.weight) == (amounts.desirable, amounts.weight)


def everything() -> str:
    """Return all tables as text, those of Django and allauth as well."""
    return "".join(serialize("json", m._default_manager.all()) for m in apps.get_models())


def erase_me(client: Client, typed: str, password: str = PASSWORD):
    asked = client.post(reverse("me-erase"), {"email": typed})
    assert asked["Location"].startswith(reverse("account_reauthenticate"))
    again = {"password": password, "next": reverse("me-erase")}
    return client.post(asked["Location"], again)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes_erasing, "CHUNK", 7)


@pytest.mark.slow
def test_erased_person_leaves_no_trace_and_examples_follow_other_votes(
    voted_project: Project,
    admin: User,
    annotator: User,
    second_annotator: User,
    as_user: As,
    small_chunks: None,
) -> None:
    completions = list(voted_project.completions.order_by("pk"))
    vote(completions[0], second_annotator, Verdict.DOWN)  # a tie, then a down
    vote(completions[1], second_annotator, Verdict.DOWN)  # agreed, and kept
    vote(completions[2], annotator, Verdict.UP)
    vote_undo(completion=completions[2], by=annotator, source=Source.ANNOTATE)
    chat(voted_project, annotator, version="base")
    client, number = as_user(annotator), annotator.pk

    answer = erase_me(client, "  Ann@example.com ")

    assert answer["Location"] == reverse("account_login")
    assert not get_user(client).is_authenticated
    examples_agree_with_votes()
    assert set(Vote.objects.values_list("user", flat=True)) == {second_annotator.pk}
    assert sorted(Example.objects.values_list("desirable", "weight")) == [(False, 1.0)] * 2
    erasure = Erasure.objects.get()
    # 59 of the desk (one was undone) and the thumb of the chat
    assert (erasure.person, erasure.votes, erasure.examples_gone) == (number, 60, 57 + 1)
    assert (erasure.examples_changed, erasure.by, erasure.runs) == (1, None, [])
    assert erasure.finished_at
    left = everything()
    for trace in ("ann@example.com", "Ann Otator", "What about step", "Are you there?"):
        assert trace not in left, trace


def probe_of(completion: Completion, by: User) -> Probe:
    """Make a probe of an answer."""
    return probe_add(
        project=completion.project,
        messages=completion.prompt.messages,
        kind=Probe.Kind.LACKS,
        pattern="sorry",
        by=by,
        completion=completion,
    )


@pytest.mark.parametrize("account", [True, False])
def test_probes_lose_their_author_and_stay(
    voted_project: Project, admin: User, annotator: User, account: bool
) -> None:
    """Also where only the project forgets the person, whose account stays."""
    mine = probe_of(voted_project.completions.all()[0], annotator)
    other = probe_of(voted_project.completions.all()[1], admin)
    person_erase(user=annotator, by=admin, project=None if account else voted_project)
    assert dict(Probe.objects.values_list("pk", "created_by")) == {
        mine.pk: None,
        other.pk: admin.pk,
    }


def test_probe_of_a_question_that_only_the_erased_person_asked_is_deleted(
    voted_project: Project, admin: User, annotator: User
) -> None:
    chat(voted_project, annotator, version="base")
    asked = Completion.objects.filter(turns__conversation__user=annotator).first()
    assert asked is not None
    probe_of(asked, admin)
    others = probe_of(voted_project.completions.order_by("pk")[0], admin)
    person_erase(user=annotator, by=admin, project=voted_project)
    assert list(Probe.objects.all()) == [others]


@pytest.mark.slow
def test_versions_trained_on_the_votes_are_named_until_replaced(
    voted_project: Project, admin: User, annotator: User, as_user: As
) -> None:
    run = run_request(project=voted_project, by=admin)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    failed = run_request(project=voted_project, by=admin)
    Run.objects.filter(pk=failed.pk).update(status=Run.Status.FAILED)
    under_way = run_request(project=voted_project, by=admin)
    Project.objects.filter(pk=voted_project.pk).update(live_version="bot@1")
    owner = as_user(admin)
    train = reverse("runs", args=["bot"])
    assert b"had learned from" not in owner.get(train).content

    path = reverse("person-erase", args=["bot", annotator.pk])
    text = owner.post(path, {"email": annotator.email}, follow=True).content.decode()

    assert "bot@1, bot@3 had used it: what is live is trained again without it" in text
    [erasure] = Erasure.objects.all()
    assert (erasure.runs, erasure.by) == ([run.number, under_way.number], admin)
    event = AuditEvent.objects.get(action="person.erase")
    assert (event.actor, event.target) == (admin, f"person {annotator.pk}")
    assert "bot@1, bot@3 had used it" in event.reason
    assert b"bot@1 had learned from what was erased since" in owner.get(train).content
    Project.objects.filter(pk=voted_project.pk).update(live_version="bot@4")
    assert b"had learned from" not in owner.get(train).content


@pytest.mark.slow
def test_vote_after_the_snapshot_names_no_version(
    voted_project: Project, admin: User, second_annotator: User
) -> None:
    run = run_request(project=voted_project, by=admin)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    late = voted_project.completions.first()
    assert late is not None
    vote(late, second_annotator, Verdict.UP)

    [erasure] = person_erase(user=second_annotator, by=admin)

    assert (erasure.votes, erasure.runs) == (1, [])


def test_erasure_from_one_project_keeps_the_account_and_other_projects(
    project: Project, admin: User, outsider: User, as_user: As, make_completions: Make
) -> None:
    other = Project.objects.get(slug="other")
    member_set(project=project, user=outsider, role=Role.ANNOTATOR)
    [here], [there] = make_completions(1), make_completions(1, of=other)
    vote(here, outsider, Verdict.UP)
    vote(there, outsider, Verdict.UP)

    path = reverse("person-erase", args=["bot", outsider.pk])
    as_user(admin).post(path, {"email": outsider.email})

    assert list(Vote.objects.values_list("completion", flat=True)) == [there.pk]
    examples_agree_with_votes()
    roles = Membership.objects.filter(user=outsider).values_list("project__slug", flat=True)
    assert list(roles) == ["other"]
    assert User.objects.get(pk=outsider.pk).is_active


def test_prompts_shared_with_others_are_kept(project: Project, admin: User, viewer: User) -> None:
    chat(project, admin, version="base")
    chat(project, viewer, version="base")
    own = said(project, "Mine alone?", "Yes.", version="base")
    Comparison.objects.create(
        project=project,
        user=viewer,
        question="Mine alone?",
        left=own,
        right=None,
        left_version="base",
        right_version="base",
    )

    person_erase(user=viewer, by=admin, project=project)

    assert Prompt.objects.count() == 3
    assert Conversation.objects.get().user == admin
    assert Conversation.objects.get().turns.filter(completion__isnull=False).count() == 3
    assert not Comparison.objects.exists()


def test_imported_labels_are_kept_without_the_name(
    project: Project, admin: User, annotator: User, make_completions: Make
) -> None:
    imported, judged = make_completions(2)
    vote(imported, annotator, Verdict.UP, Source.IMPORT)
    vote(judged, annotator, Verdict.UP)

    person_erase(user=annotator, by=annotator)

    assert [(v.completion_id, v.user.is_active) for v in Vote.objects.all()] == [
        (imported.pk, False)
    ]
    assert VoteEvent.objects.count() == 1
    examples_agree_with_votes()
    assert not User.objects.filter(email="ann@example.com").exists()


def test_user_of_the_product_is_erased_by_name(
    project: Project, admin: User, outsider: User, as_user: As, make_completions: Make
) -> None:
    token, _ = token_create(project=project, name="Shop", scopes=list(Scope), by=admin)
    jo = voter_of(token=token, name="jo")
    [completion] = make_completions(1)
    vote(completion, jo, Verdict.UP, Source.API)
    vote(completion, token.user, Verdict.UP, Source.API)
    path = reverse("api-person-erase", args=["bot"])

    assert as_user(admin).post(path, {"name": "flo"}).status_code == 404
    assert as_user(outsider).post(path, {"name": "jo"}).status_code == 404
    text = as_user(admin).post(path, {"name": "jo"}, follow=True).content.decode()

    assert "Erased, with 1 vote." in text
    assert list(Vote.objects.values_list("user", flat=True)) == [token.user.pk]
    assert not project.api_people.exists()
    assert not User.objects.filter(pk=jo.pk).exists()


def test_erasing_oneself_asks_for_the_password_again(
    project: Project, annotator: User, as_user: As
) -> None:
    client = as_user(annotator)

    answer = erase_me(client, annotator.email, password="wrong")

    assert b'class="errors"' in answer.content
    assert User.objects.get(pk=annotator.pk).is_active
    erase_me(client, annotator.email)
    assert not User.objects.filter(pk=annotator.pk).exists()


def test_erasing_oneself_without_a_password_asks_for_the_second_factor(
    project: Project, annotator: User, as_user: As
) -> None:
    annotator.set_unusable_password()
    annotator.save()
    TOTP.activate(annotator, generate_totp_secret())

    asked = as_user(annotator).post(reverse("me-erase"), {"email": annotator.email})

    assert asked["Location"].startswith(reverse("mfa_reauthenticate"))
    assert User.objects.get(pk=annotator.pk).is_active


@pytest.mark.parametrize("typed", ["", "bob@example.com", "ann"])
def test_wrong_address_is_refused(
    typed: str, project: Project, admin: User, annotator: User, as_user: As
) -> None:
    erase_me(as_user(annotator), typed)
    as_user(admin).post(reverse("person-erase", args=["bot", annotator.pk]), {"email": typed})

    assert User.objects.filter(pk=annotator.pk, is_active=True).exists()
    assert not Erasure.objects.exists()


def test_last_owner_and_higher_roles_are_not_erased(
    project: Project, admin: User, annotator: User, as_user: As
) -> None:
    member_set(project=project, user=annotator, role=Role.ADMIN)

    erase_me(as_user(admin), admin.email)
    path = reverse("person-erase", args=["bot", admin.pk])
    as_user(annotator).post(path, {"email": admin.email})

    assert User.objects.filter(pk=admin.pk, is_active=True).exists()
    assert Membership.objects.filter(user=admin).exists()
    assert not Erasure.objects.exists()


@pytest.mark.slow
def test_interrupted_erasure_is_finished_by_the_next_tick(
    voted_project: Project,
    annotator: User,
    small_chunks: None,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    real, chunks = votes_erasing.chunk_erase, []

    def dies(**given: object) -> object:
        chunks.append(1)
        if len(chunks) == 3:
            raise KeyboardInterrupt
        return real(**given)

    monkeypatch.setattr(votes_erasing, "chunk_erase", dies)
    monkeypatch.setattr(erase, "apply_async", lambda args, **_: erase(*args))
    with pytest.raises(KeyboardInterrupt):
        person_erase(user=annotator, by=annotator)
    assert Vote.objects.count() == 60 - 2 * 7
    assert not User.objects.get(pk=annotator.pk).is_active, "the account is closed meanwhile"

    dispatch()
    assert Vote.objects.exists(), "another task may hold the claim"
    heartbeat_stops(settings)
    dispatch()

    assert not Vote.objects.exists()
    assert not Example.objects.exists()
    assert not User.objects.filter(pk=annotator.pk).exists()
    erasure = Erasure.objects.get()
    assert (erasure.finished_at is not None, erasure.votes, erasure.examples_gone) == (True, 60, 60)


def heartbeat_stops(settings: Settings) -> None:
    stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS + 1)
    Erasure.objects.update(heartbeat_at=stale)


@pytest.mark.slow
def test_worker_whose_erasure_was_taken_over_stops_deleting(
    voted_project: Project,
    annotator: User,
    small_chunks: None,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    real, chunks = votes_erasing.chunk_erase, []

    def taken_over(**given: object) -> object:
        chunks.append(1)
        if len(chunks) == 3:
            heartbeat_stops(settings)
            assert erasure_claim(Erasure.objects.get().pk) is not None
        return real(**given)

    monkeypatch.setattr(votes_erasing, "chunk_erase", taken_over)
    person_erase(user=annotator, by=annotator)

    assert len(chunks) == 3
    assert Vote.objects.count() == 60 - 2 * 7, "the third chunk is rolled back"
    assert User.objects.filter(pk=annotator.pk).exists(), "the other worker has not finished"
    erasure = Erasure.objects.get()
    assert (erasure.finished_at, erasure.votes) == (None, 14)

    heartbeat_stops(settings)
    claim = erasure_claim(erasure.pk)
    assert claim is not None
    erasure_execute(claim)
    erasure.refresh_from_db()
    assert (erasure.finished_at is not None, erasure.votes) == (True, 60)
    assert not User.objects.filter(pk=annotator.pk).exists()


def test_audit_trail_of_pauses_and_invitations_keep_no_name(
    project: Project,
    admin: User,
    annotator: User,
    outsider: User,
    as_user: As,
    make_completions: Make,
) -> None:
    project.gold_every, project.gold_window, project.gold_least = 1, 3, 60
    project.save()
    for completion in make_completions(3):
        gold_mark(completion=completion, verdict=Verdict.UP, why="It is honest.", by=admin)
        vote(completion, annotator, Verdict.DOWN)
    pause = pause_if_due(project_id=project.pk, user=annotator)
    assert pause is not None
    pause_lift(pause=pause, by=admin, restore=True)
    # entries of versions that wrote names
    for action, target in (
        ("pause.begin", "Ann Otator"),
        ("votes.restore", "12 of Ann Otator"),
        ("flag.restore", "3 of Ann Otator"),
    ):
        AuditEvent.objects.create(project=project, action=action, target=target)
    for owner in (admin, outsider):
        invite = {"role": Role.VIEWER, "days": 1, "max_uses": 1}
        actor = Membership.objects.get(user=owner)
        for email in (annotator.email, "somebody@example.com"):
            invitation_create(**invite, email=email, actor=actor)

    person_erase(user=annotator, by=annotator)

    left = everything()
    for trace in ("ann@example.com", "Ann Otator"):
        assert trace not in left, trace
    assert set(Invitation.objects.values_list("email", flat=True)) == {"somebody@example.com"}
    targets = AuditEvent.objects.filter(action__in=["pause.begin", "pause.lift", "votes.restore"])
    assert targets.filter(target__endswith=f"person {annotator.pk}").count() == 3


def test_erasure_from_one_project_deletes_its_invitations_only(
    project: Project, admin: User, annotator: User, outsider: User
) -> None:
    for owner in (admin, outsider):
        actor = Membership.objects.get(user=owner)
        invitation_create(role=Role.VIEWER, days=1, max_uses=1, email=annotator.email, actor=actor)

    person_erase(user=annotator, by=admin, project=project)

    assert [invitation.project.slug for invitation in Invitation.objects.all()] == ["other"]


def test_stored_answers_of_the_api_lose_the_erased_user(
    project: Project, admin: User, make_completions: Make
) -> None:
    token, secret = token_create(project=project, name="Shop", scopes=list(Scope), by=admin)
    [completion] = make_completions(1)
    for number, name in enumerate(("jo", "flo")):
        sent = Client().post(
            "/api/v1/projects/bot/votes",
            {"votes": [{"completion_id": completion.pk, "verdict": "up", "user": name}]},
            content_type="application/json",
            headers={"Authorization": f"Bearer {secret}", "Idempotency-Key": f"key-{number}"},
        )
        assert sent.status_code == 200

    person_erase(user=voter_of(token=token, name="jo"), by=admin)

    left = everything()
    assert '\\"user\\":\\"jo\\"' not in left
    assert '\\"user\\":\\"flo\\"' in left


def test_events_of_webhooks_lose_the_votes_of_the_erased_person(
    voted_project: Project,
    admin: User,
    annotator: User,
    second_annotator: User,
) -> None:
    webhook = Webhook.objects.create(
        project=voted_project,
        url="https://example.com",
        secret="x",
        events=[Event.VOTE_CAST, Event.RUN_FINISHED],
        created_by=admin,
    )
    Project.objects.update(votes_told=True)
    for by in (annotator, second_annotator):
        completion = Completion.objects.select_related("project").order_by("-pk")[0]
        vote(completion, by, Verdict.UP)
    assert WebhookDelivery.objects.count() == 2
    WebhookDelivery.objects.create(webhook=webhook, event=Event.RUN_FINISHED, key="1", body="{}")

    person_erase(user=annotator, by=admin, project=voted_project)

    left = WebhookDelivery.objects.order_by("pk").values_list("body", flat=True)
    assert [f'"person": {second_annotator.pk}}}' in body for body in left] == [True, False]


def test_second_delivery_of_an_erasure_does_nothing_while_the_first_runs(
    voted_project: Project, annotator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, chunks = votes_erasing.chunk_erase, []

    def delivered_twice(**given: object) -> object:
        chunks.append(1)
        erase(Erasure.objects.get().pk)
        return real(**given)

    monkeypatch.setattr(votes_erasing, "chunk_erase", delivered_twice)
    person_erase(user=annotator, by=annotator)
    assert len(chunks) == 1
    assert Erasure.objects.get().votes == 60


def test_account_is_erased_from_projects_where_only_undone_votes_are_left(
    voted_project: Project, second_annotator: User, make_completions: Make
) -> None:
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    answers = make_completions(3)
    for completion in answers:
        vote(completion, second_annotator, Verdict.UP)
    run = run_request(project=Project.objects.get(pk=voted_project.pk), by=None)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    for completion in answers:
        vote_undo(completion=completion, by=second_annotator, source=Source.ANNOTATE)
    Membership.objects.filter(user=second_annotator).delete()
    theirs = run.snapshot.items.filter(completion__in=answers)
    assert theirs.count() == 3

    [erasure] = person_erase(user=second_annotator, by=None)

    assert (erasure.project, erasure.runs) == (voted_project, [run.number])
    assert not theirs.exists()
    assert not User.objects.filter(pk=second_annotator.pk).exists()


# -- what the gate asked


def asked_by_the_gate(project: Project, *prompts: Prompt) -> Adapter:
    """Return a version whose gate asked these prompts, with the files of its evaluation."""
    snapshot = Snapshot.objects.create(project=project, train_up=1, train_down=1)
    run = Run.objects.create(
        project=project, number=1, snapshot=snapshot, trigger="person", status="succeeded"
    )
    (run.directory / "evaluation").mkdir(parents=True)
    (run.directory / "evaluation" / "prompts.jsonl").write_text(str(prompts[0].messages))
    return Adapter.objects.create(
        project=project,
        run=run,
        name=project.adapter_name(1),
        path="adapters/1",
        sha256="0" * 64,
        report={
            "answers": [
                {
                    "id": str(prompt.pk),
                    "messages": prompt.messages,
                    "answers": {"base": [{"text": f"To {prompt.title}", "words": 3}]},
                }
                for prompt in prompts
            ]
        },
    )


@pytest.mark.parametrize("how", ["person", "answer", "conversation"])
def test_question_that_nobody_voted_on_leaves_the_gate_reports(
    project: Project, viewer: User, admin: User, settings: Settings, tmp_path: Path, how: str
) -> None:
    """The gate asks test prompts whether anybody voted on them or not."""
    settings.ARTIFACT_ROOT = tmp_path
    conversation = talk(project, viewer, "What helps against my rash?")
    turn = conversation.turns.select_related("completion__project", "completion__prompt").get()
    assert turn.completion is not None
    Prompt.objects.update(split="test")
    other = prompts_make(project, ["Of everybody?"])[0]
    adapter = asked_by_the_gate(project, turn.completion.prompt, other)
    assert "my rash" in everything()

    if how == "person":
        assert person_erase(user=viewer, by=admin, project=project)[0].runs == []
    elif how == "answer":
        example_erase(completion=turn.completion, by=admin)
    else:
        conversations_remove([conversation.pk])

    adapter.refresh_from_db()
    gone, kept = adapter.report["answers"]
    assert (gone["messages"], gone["answers"]) == ([], {"base": [{"text": "", "words": 3}]})
    assert kept["answers"]["base"][0]["text"] == "To Of everybody?"
    assert [shown.messages for shown in comparisons(adapter)] == [other.messages]
    assert not (adapter.run.directory / "evaluation").exists()
    if how != "answer":  # the turn keeps the question of its own conversation
        assert "my rash" not in everything()


def test_question_leaves_the_files_of_a_gate_that_was_cancelled(
    project: Project, viewer: User, admin: User, settings: Settings, tmp_path: Path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    talk(project, viewer, "What helps against my rash?")
    Prompt.objects.update(split="test")
    run = asked_by_the_gate(project, Prompt.objects.get()).run
    Adapter.objects.all().delete()
    Run.objects.update(status=Run.Status.CANCELLED, finished_at=timezone.now())

    person_erase(user=viewer, by=admin, project=project)

    assert not (run.directory / "evaluation").exists()


def test_report_of_a_gate_that_asked_meanwhile_has_no_deleted_question(
    voted_project: Project, admin: User, settings: Settings, tmp_path: Path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    first, second = prompts_make(voted_project, ["One?", "Two?"])
    run = run_request(project=voted_project, by=admin)
    claim = run_claim(run.pk)
    assert claim is not None
    report = gate_report("bot@1")
    for prompt, entry in zip((first, second), report["answers"], strict=False):
        entry |= {"id": str(prompt.pk), "messages": prompt.messages}
    evaluation = run.directory / "evaluation"
    evaluation.mkdir(parents=True)
    lines = [json.dumps({"id": str(prompt.pk), "messages": []}) for prompt in (first, second)]
    (evaluation / "prompts.jsonl").write_text("".join(f"{line}\n" for line in lines))
    first.delete()

    adapter = run_finish(claim=claim, path="p", sha256="0", report=report, fit={})

    assert adapter is not None
    gone, kept = adapter.report["answers"][:2]
    assert (gone["messages"], kept["messages"]) == ([], second.messages)
    assert not any(answer["text"] for given in gone["answers"].values() for answer in given)
    assert not evaluation.exists()


@pytest.mark.django_db(transaction=True)
def test_version_that_is_registered_while_its_question_is_deleted_does_not_show_it(
    voted_project: Project, admin: User, viewer: User, settings: Settings, tmp_path: Path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    conversation = talk(voted_project, viewer, "What helps against my rash?")
    Prompt.objects.filter(completions__turns__conversation=conversation).update(split="test")
    asked = Prompt.objects.get(completions__turns__conversation=conversation)
    claim = run_claim(run_request(project=voted_project, by=admin).pk)
    assert claim is not None
    report = gate_report("bot@1")
    report["answers"][0] |= {"id": str(asked.pk), "messages": asked.messages}
    worker = Beside(lambda: run_finish(claim=claim, path="p", sha256="0", report=report, fit={}))

    def in_the_middle(**values: object) -> None:
        worker.begin()

    pre_delete.connect(in_the_middle, sender=Prompt)
    try:
        person_erase(user=viewer, by=admin, project=voted_project)
    finally:
        pre_delete.disconnect(in_the_middle, sender=Prompt)

    assert isinstance(worker.result(), Adapter), worker.results
    assert Adapter.objects.get().report["answers"][0]["messages"] == []


# -- beside runs


def test_run_that_is_requested_during_an_erasure_begins_after_it(
    voted_project: Project,
    admin: User,
    second_annotator: User,
    make_completions: Make,
    as_user: As,
) -> None:
    Project.objects.update(person_share=100)
    for completion in make_completions(6):
        vote(completion, second_annotator, Verdict.UP)
    [claim] = erasures_begin(user=second_annotator, by=admin, project=voted_project)
    voted_project.refresh_from_db()

    run = run_request(project=voted_project, by=admin)

    assert claim.row.runs == []
    assert run.snapshot.items.count() == 66
    assert run_claim(run.pk) is None
    assert run_claim_next() is None
    for name, arguments in (("run", ["bot", run.number]), ("runs", ["bot"])):
        page = as_user(admin).get(reverse(name, args=arguments)).content.decode()
        assert "aiting for the end of an" in page or "waiting for an erasure" in page
        assert "GPU worker" not in page
    erasure_execute(claim)
    assert run.snapshot.items.count() == 60
    assert run_claim(run.pk) is not None


# -- beside a worker that takes a snapshot


class Beside:
    """Calls a function in a thread with a connection of its own, once."""

    #: How long the caller goes on waiting: the other one may wait for it.
    SECONDS = 2.0

    def __init__(self, call: Callable[[], object]) -> None:
        self.results: list[object] = []
        self.thread = threading.Thread(target=self._run, args=(call,))

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self.results.append(call())
        except Exception as error:
            self.results.append(error)
        finally:
            connection.close()

    def begin(self) -> None:
        if not self.thread.is_alive() and not self.results:
            self.thread.start()
            self.thread.join(self.SECONDS)

    def result(self) -> object:
        self.thread.join(PATIENCE)
        [found] = self.results
        return found


@pytest.fixture
def queued(voted_project: Project, admin: User, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose snapshot a worker takes."""
    monkeypatch.setattr(freezing, "AT_ONCE", 5)
    return run_request(project=voted_project, by=admin)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("person", [False, True])
def test_erasure_that_begins_when_a_snapshot_ends_finds_it(
    queued: Run, admin: User, annotator: User, second_annotator: User, person: bool
) -> None:
    answer = Completion.objects.filter(example__desirable=False).first()
    assert answer is not None
    vote(answer, second_annotator, Verdict.DOWN)

    def erase_one() -> object:
        if person:
            return person_erase(user=second_annotator, by=admin, project=queued.project)
        return [example_erase(completion=answer, by=admin)]

    erasing, asked = Beside(erase_one), taking.erased_since

    def last_look(*arguments: object) -> bool:
        found = asked(*arguments)  # type: ignore[arg-type]
        erasing.begin()
        return found

    with patch.object(taking, "erased_since", last_look):
        assert snapshot_take(queued.snapshot_id)

    result = erasing.result()
    assert isinstance(result, list), result
    assert [erasure.runs for erasure in result] == [[queued.number]]


@pytest.mark.django_db(transaction=True)
def test_snapshot_that_ends_while_an_answer_is_erased_is_taken_again(
    queued: Run, admin: User
) -> None:
    answer = Completion.objects.filter(example__split="train").first()
    assert answer is not None
    number = answer.pk
    worker = Beside(lambda: snapshot_take(queued.snapshot_id))

    def in_the_middle(**values: object) -> None:
        worker.begin()

    pre_delete.connect(in_the_middle, sender=Completion)
    try:
        erasure = example_erase(completion=answer, by=admin)
    finally:
        pre_delete.disconnect(in_the_middle, sender=Completion)

    assert isinstance(worker.result(), bool), worker.results
    # on SQLite the worker has waited for the erasure
    assert worker.result() or snapshot_take(queued.snapshot_id)
    assert not SnapshotItem.objects.filter(completion=number).exists()
    assert SnapshotItem.objects.count() == 59
    assert erasure.runs == []
