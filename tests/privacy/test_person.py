"""Deactivation, each person's page, their export, and streams of a closed account."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, Membership, Role, Scope, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Completion, Lease, Project, Source, Verdict, Vote
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.tokens.services import token_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.privacy.export import LEFT_OUT, PARTS, person_json
from feedback_app.serving.demo import generation
from feedback_app.serving.demo.conversations import turn_begin, turn_stream
from feedback_app.serving.models import Conversation, Release
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.services import run_request

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
Make = Callable[..., list[Completion]]


def url(name: str, *args: object) -> str:
    return reverse(name, args=["bot", *args])


def adapter_of(run: Run) -> Adapter:
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    name = run.project.adapter_name(run.number)
    return Adapter.objects.create(
        project=run.project, run=run, name=name, path=f"adapters/{name}", sha256="0" * 64
    )


# -- deactivation


def test_deactivated_person_loses_all_access_and_votes_remain(
    admin: User, annotator: User, as_user: As, make_completions: Make
) -> None:
    voted, held = make_completions(2)
    vote_cast(completion=voted, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    soon = timezone.now() + dt.timedelta(minutes=5)
    Lease.objects.create(completion=held, user=annotator, expires_at=soon)
    owner, theirs, phone = as_user(admin), as_user(annotator), as_user(annotator)

    page = owner.post(url("person-deactivate", annotator.pk), follow=True).content.decode()

    assert "This account is deactivated" in page
    for client in (theirs, phone):
        assert client.get(url("annotate")).status_code == 302
    assert Session.objects.count() == 1, "only the owner's session is left"
    assert (Vote.objects.count(), Lease.objects.count()) == (1, 0)
    login = Client().post(
        "/accounts/login/", {"login": annotator.email, "password": "correct horse battery"}
    )
    assert "inactive" in login["Location"]

    owner.post(url("person-reactivate", annotator.pk))
    assert phone.get(url("annotate")).status_code == 302, "an old session stays invalid"
    assert as_user(annotator).get(url("annotate")).status_code == 200
    actions = AuditEvent.objects.order_by("pk").values_list("action", "target")
    assert list(actions) == [
        ("account.deactivate", f"person {annotator.pk}"),
        ("account.reactivate", f"person {annotator.pk}"),
    ]


def test_account_is_closed_only_by_an_owner_of_all_its_projects(
    project: Project, admin: User, annotator: User, outsider: User, as_user: As
) -> None:
    helper = User.objects.create_user("hel@example.com", None)
    member_set(project=project, user=helper, role=Role.ADMIN)
    member_set(project=project, user=outsider, role=Role.VIEWER)  # and owner of another

    assert as_user(helper).post(url("person-deactivate", annotator.pk)).status_code == 403
    as_user(admin).post(url("person-deactivate", outsider.pk))
    as_user(admin).post(url("person-deactivate", admin.pk))
    assert not User.objects.filter(is_active=False).exists()

    User.objects.filter(pk=admin.pk).update(is_superuser=True)
    as_user(admin).post(url("person-deactivate", outsider.pk))
    assert User.objects.get(pk=outsider.pk).is_active, "the other project would have no owner"
    other = Project.objects.get(slug="other")
    member_set(project=other, user=helper, role=Role.OWNER)
    as_user(admin).post(url("person-deactivate", outsider.pk))
    assert not User.objects.get(pk=outsider.pk).is_active


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deactivated", "removed"])
def test_stream_in_progress_ends_when_its_reader_is_deactivated(
    how: str,
    served: Project,
    admin: User,
    viewer: User,
    as_user: As,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "ACCESS_CHECK_SECONDS", 0.0)
    owner = as_user(admin)
    for attempt in range(10):
        User.objects.filter(pk=viewer.pk).update(is_active=True)
        member_set(project=served, user=viewer, role=Role.VIEWER)
        conversation = Conversation.objects.create(project=served, user=viewer)
        turn = turn_begin(conversation=conversation, text=f"Attempt {attempt}")
        pieces = []
        for piece in turn_stream(turn=turn):
            pieces.append(piece)
            if len(pieces) == 1:
                action = "person-deactivate" if how == "deactivated" else "member-remove"
                owner.post(url(action, viewer.pk))
        turn.refresh_from_db()
        assert turn.completion is not None
        if turn.completion.finish_reason == "aborted":
            break  # a tiny model may end with its first piece
    assert turn.completion.finish_reason == "aborted"
    assert [turn.completion.text] == pieces, "the partial answer is stored"


# -- the person's page


@pytest.mark.slow
def test_own_page_shows_the_effects_of_votes(
    voted_project: Project, admin: User, annotator: User, as_user: As
) -> None:
    first = adapter_of(run_request(project=voted_project, by=admin))
    late = voted_project.completions.first()
    assert late is not None
    vote_cast(completion=late, verdict=Verdict.UP, by=admin, source=Source.DEMO)
    Release.objects.create(project=voted_project, adapter=first)

    mine = as_user(annotator).get("/me/")

    [work] = mine.context["works"]
    trained = voted_project.examples.filter(split="train").count()
    assert (work.counts.ups, work.counts.downs, work.counts.examples) == (20, 40, 60)
    [effect] = work.effects
    assert (effect.name, effect.votes, effect.was_live) == ("bot@1", trained, True)
    assert mine.context["days_total"] == 60
    text = mine.content.decode()
    assert "helped to train <strong>bot@1</strong>, live since" in text
    [admins] = as_user(admin).get("/me/").context["works"]
    assert admins.effects == [], "a vote after the snapshot was not trained on"


def test_page_of_a_member_shows_this_project_only(
    project: Project, admin: User, annotator: User, outsider: User, viewer: User, as_user: As
) -> None:
    secret = project_create(
        slug="secret", name="Secret", base_model="SmolLM2-135M-Instruct", owner=annotator
    )
    token_create(project=secret, name="Hidden", scopes=list(Scope), by=annotator)
    token_create(project=project, name="Shop", scopes=list(Scope), by=annotator)

    page = as_user(admin).get(url("person", annotator.pk)).content.decode()

    assert "Shop" in page
    assert "Secret" not in page
    assert "Hidden" not in page
    assert as_user(annotator).get("/me/").content.decode().count("Secret") > 0
    assert as_user(admin).get(url("person", outsider.pk)).status_code == 404
    assert as_user(viewer).get(url("person", annotator.pk)).status_code == 403
    assert as_user(outsider).get(url("person", annotator.pk)).status_code == 404


def test_leaving_ends_the_membership_except_for_the_last_owner(
    project: Project, admin: User, annotator: User, as_user: As
) -> None:
    as_user(annotator).post(url("me-leave"))
    as_user(admin).post(url("me-leave"))

    assert list(Membership.objects.values_list("user", flat=True)) == [admin.pk]


@pytest.mark.slow
def test_own_page_queries_do_not_grow_with_work(
    voted_project: Project,
    admin: User,
    annotator: User,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    for _ in range(3):
        adapter_of(run_request(project=voted_project, by=admin))
    client = as_user(annotator)

    with django_assert_max_num_queries(14):
        client.get("/me/")


# -- export


def test_export_contains_own_data_only(
    project: Project, admin: User, annotator: User, as_user: As, make_completions: Make
) -> None:
    mine, others = make_completions(2)
    vote_cast(
        completion=mine, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE, comment="Hm ü"
    )
    vote_cast(completion=others, verdict=Verdict.UP, by=admin, source=Source.DEMO)
    conversation = Conversation.objects.create(project=project, user=annotator)
    turn_begin(conversation=conversation, text="What do you know of me?")

    answer = as_user(annotator).get("/me/export/")

    exported = json.loads(answer.getvalue())
    assert answer["Content-Disposition"].startswith("attachment")
    assert exported["account"]["email"] == "ann@example.com"
    [vote] = exported["votes"]
    assert (vote["completion"], vote["verdict"], vote["comment"]) == (mine.pk, "down", "Hm ü")
    assert vote["completion__prompt__messages"][0]["content"] == "Question number 0?"
    assert [turn["user_message"] for turn in exported["conversations"]] == [
        "What do you know of me?"
    ]
    assert [row["role"] for row in exported["memberships"]] == ["annotator"]
    assert "Answer number 1." not in answer.getvalue().decode()
    assert "admin@example.com" not in answer.getvalue().decode()


@pytest.mark.slow
def test_export_is_streamed(voted_project: Project, annotator: User) -> None:
    pieces = list(person_json(annotator))

    assert len(pieces) > 120
    assert max(len(piece) for piece in pieces) < 1_000


def test_every_table_with_a_user_is_exported_or_listed() -> None:
    """Each table with a foreign key to users is exported, or listed as an exception."""
    exported = {part.rows.model for part in PARTS} | set(LEFT_OUT)
    pointing = {
        field.related_model
        for field in User._meta.get_fields(include_hidden=True)
        if (field.one_to_many or field.one_to_one)
        and field.auto_created
        and field.related_model.__module__.startswith("feedback_app.")
        and not field.related_model._meta.auto_created  # rows between two tables
    }
    assert len(pointing) > 12
    assert {model.__name__ for model in pointing - exported} == set()
