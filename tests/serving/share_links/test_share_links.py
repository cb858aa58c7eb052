"""Share links: what visitors can do, what is hidden from them, and the limits."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, Membership, User
from feedback_app.feedback.models import Project, Vote
from feedback_app.serving.demo.conversations import turn_begin
from feedback_app.serving.demo.events import turn_events
from feedback_app.serving.models import Conversation, ShareLink, ShareVisitor, Turn
from feedback_app.serving.share_links import services
from feedback_app.serving.share_links.services import link_create, link_revoke
from feedback_app.web.errors import UserError
from tests.served import MakeAdapter
from tests.serving.demo.test_pages import STREAM, events

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.slow,
]

As = Callable[[User], Client]
HTMX = {"HX-Request": "true"}


class Shared:
    """A link, and URLs under it."""

    def __init__(self, project: Project, by: User, **limits: Any) -> None:
        usual = {"days": 7, "messages_limit": 50, "messages_each": 10, "votes_limit": 5}
        self.link, self.secret = link_create(
            project=project, by=by, **{"label": "Board", "choice": "live", **usual, **limits}
        )

    def url(self, name: str, *args: Any) -> str:
        return reverse(name, args=[self.secret, *args])

    def say(self, client: Client, text: str = "Hello?") -> Any:
        return client.post(self.url("shared-send"), {"text": text}, follow=True)

    def refresh(self) -> ShareLink:
        self.link.refresh_from_db()
        return self.link


@pytest.fixture(autouse=True)
def no_rate_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the visitor's rate limit, which tests exceed; the test of the limit lowers it."""
    monkeypatch.setattr(services, "VISITOR_MESSAGES_A_MINUTE", 1_000)


@pytest.fixture
def shared(served: Project, admin: User) -> Shared:
    return Shared(served, admin)


@pytest.mark.usefixtures("short_answers")
def test_visitor_chats_votes_and_undoes_without_an_account(shared: Shared) -> None:
    client = Client()
    page = client.get(shared.url("shared"))
    assert page.status_code == 200
    assert not ShareVisitor.objects.exists()  # viewing the page creates no row

    got = events(client.post(shared.url("shared-send"), {"text": "Hello?"}, headers=STREAM))
    assert got[0][1]["url"] == shared.url("shared")
    assert got[-1][0] == "done"
    turn = Turn.objects.get()
    assert turn.completion is not None
    visitor = ShareVisitor.objects.get()
    assert turn.conversation.user == visitor.user
    assert not visitor.user.is_active
    assert not Membership.objects.filter(user=visitor.user).exists()

    vote, undo = (shared.url(f"shared-{action}", turn.completion_id) for action in ("vote", "undo"))
    thumbs = client.post(vote, {"verdict": "up"}, headers=HTMX).content.decode()
    assert 'aria-pressed="true"' in thumbs
    kept = Vote.objects.get()
    assert (kept.verdict, kept.source, kept.user) == ("up", "demo", visitor.user)
    client.post(vote, {"verdict": "down"})  # a changed thumb does not count twice
    assert shared.refresh().votes_used == 1
    client.post(undo)
    client.post(undo)
    assert shared.refresh().votes_used == 0
    assert not Vote.objects.exists()
    client.post(shared.url("shared-again", turn.pk), {"text": "Hello again?"})
    assert "Hello again?" in client.get(shared.url("shared")).content.decode()
    client.post(shared.url("shared-new"))
    assert "Ask something" in client.get(shared.url("shared")).content.decode()
    assert shared.refresh().messages_used == 2


@pytest.mark.usefixtures("short_answers")
def test_page_shows_only_the_name_of_the_project(
    shared: Shared, make_adapter: MakeAdapter, admin: User, settings: Settings
) -> None:
    adapter = make_adapter(1)
    shared = Shared(shared.link.project, admin, choice=adapter.name)
    client = Client()
    seen = [client.get(shared.url("shared")), shared.say(client)]
    got = events(client.post(shared.url("shared-send"), {"text": "And?"}, headers=STREAM))
    settings.ENGINES = {}
    broken = events(client.post(shared.url("shared-send"), {"text": "And?"}, headers=STREAM))
    assert broken[-1][0] == "error"
    seen.append(shared.say(client))
    assert Turn.objects.filter(completion__version=adapter.name).count() == 2
    text = "".join(page.content.decode() for page in seen) + str(got) + str(broken)
    assert "Support bot" in text
    project = shared.link.project
    for secret in (project.slug + "@", "/projects/", "/demo/", "/accounts/", project.base_model):
        assert secret not in text.replace("/s/" + shared.secret, "")
    for page in seen:
        assert page["X-Robots-Tag"] == "noindex, nofollow"
        assert page["Referrer-Policy"] == "no-referrer"
        assert "no-store" in page["Cache-Control"]
    # a visitor has no access to other pages
    for name in ("demo", "annotate", "releases", "share-links"):
        answer = client.get(reverse(name, args=[project.slug]))
        assert answer.status_code == 302
        assert "/accounts/login/" in answer["Location"]


def test_visitors_cannot_see_each_other(
    shared: Shared, served: Project, admin: User, as_user: As
) -> None:
    mine, other = Client(), Client()
    shared.say(mine, "My secret?")
    shared.say(other, "Hello?")
    turn = Turn.objects.get(user_message="My secret?")
    assert "My secret?" not in other.get(shared.url("shared")).content.decode()
    elsewhere = Shared(served, admin)
    for link, client in ((shared, other), (elsewhere, mine), (shared, as_user(admin))):
        for name, body in (("vote", {"verdict": "up"}), ("undo", {})):
            assert (
                client.post(link.url(f"shared-{name}", turn.completion_id), body).status_code == 404
            )
        assert client.post(link.url("shared-again", turn.pk)).status_code == 404
    assert not Vote.objects.exists()
    assert ShareVisitor.objects.count() == 2


@pytest.mark.parametrize("end", ["revoked", "expired", "never", "discarded"])
def test_ended_link_shows_an_error_page(
    end: str, shared: Shared, make_adapter: MakeAdapter, admin: User
) -> None:
    adapter = make_adapter(1)
    shared = Shared(shared.link.project, admin, choice=adapter.name)
    client = Client()
    shared.say(client)
    turn = Turn.objects.get()
    if end == "revoked":
        assert link_revoke(link=shared.link, by=admin)
        assert not link_revoke(link=shared.link, by=admin)
    elif end == "expired":
        ShareLink.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    elif end == "discarded":
        adapter.discarded_at = timezone.now()
        adapter.save()
    else:
        shared.secret = "made-up"
    page = client.get(shared.url("shared"))
    assert page.status_code == 404
    assert "This link has ended" in page.content.decode()
    assert page["X-Robots-Tag"] == "noindex, nofollow"
    for name, args in (
        ("send", ()),
        ("new", ()),
        ("again", (turn.pk,)),
        ("vote", (turn.completion_id,)),
        ("undo", (turn.completion_id,)),
    ):
        target = shared.url(f"shared-{name}", *args)
        assert client.post(target, {"text": "x"}).status_code == 404
        plain = client.post(target, {"text": "x"}, headers=STREAM)
        assert (plain.status_code, plain["Content-Type"]) == (404, "text/plain")
    assert Turn.objects.count() == 1


def test_answer_in_progress_stops_when_the_link_is_revoked(
    shared: Shared, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_app.serving.demo.generation.ACCESS_CHECK_SECONDS", 0.0)
    visitor = services.visitor_create(shared.link)
    conversation = Conversation.objects.create(project=shared.link.project, user=visitor.user)
    turn = turn_begin(conversation=conversation, text="A long story?")
    stream = turn_events(
        turn, rendered=lambda done: "", url="/", may_read=services.link_is_open(shared.link)
    )
    assert [next(stream).split("\n")[0] for _ in range(3)][-1] == "event: piece"
    link_revoke(link=shared.link, by=admin)
    rest = list(stream)
    assert len(rest) <= 2  # a piece in flight, and the end
    turn.refresh_from_db()
    assert turn.completion is not None
    assert turn.completion.finish_reason == "aborted"


@pytest.mark.usefixtures("short_answers")
def test_message_limits_of_visitor_and_link_apply(served: Project, admin: User) -> None:
    shared = Shared(served, admin, messages_each=2, messages_limit=3)
    first, second, third = Client(), Client(), Client()
    for _ in range(2):
        assert shared.say(first).status_code == 200
    assert "each visitor" in shared.say(first).content.decode()
    shared.say(second)
    refused = second.post(shared.url("shared-send"), {"text": "Hello?"}, headers=STREAM)
    assert (refused.status_code, refused["Content-Type"]) == (422, "text/plain")
    assert "limit of messages" in refused.content.decode()
    assert "limit of messages" in shared.say(third).content.decode()
    assert shared.refresh().messages_used == 3
    assert Turn.objects.count() == 3
    # refused visitors store nothing
    assert ShareVisitor.objects.count() == 2


@pytest.mark.usefixtures("short_answers")
def test_visitors_over_the_rate_limit_get_429(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now().replace(second=20)
    monkeypatch.setattr(services.timezone, "now", lambda: now)
    monkeypatch.setattr(services, "VISITOR_MESSAGES_A_MINUTE", 2)
    monkeypatch.setattr(services, "LINK_MESSAGES_A_MINUTE", 3)
    one, other = Client(), Client()

    def say(client: Client) -> Any:
        return client.post(shared.url("shared-send"), {"text": " "}, headers=STREAM)

    def spoken(client: Client) -> Any:
        answer = client.post(shared.url("shared-send"), {"text": "Hi"}, headers=STREAM)
        if answer.status_code == 200:
            list(answer.streaming_content)
        return answer

    assert say(one).status_code == 422  # an empty message does not count
    assert [spoken(one).status_code for _ in range(3)] == [200, 200, 429]
    assert [spoken(other).status_code for _ in range(2)] == [200, 429]
    refused = spoken(other)
    assert refused["Retry-After"] == "40"
    assert "wait 40 seconds" in refused.content.decode()
    now += dt.timedelta(minutes=1)
    assert spoken(one).status_code == 200


@pytest.mark.usefixtures("short_answers")
def test_thumbs_of_many_visitors_do_not_exceed_the_limit_of_the_link(
    served: Project, admin: User
) -> None:
    shared = Shared(served, admin, votes_limit=2)
    answers = []
    for _ in range(4):
        client = Client()
        shared.say(client)
        newest = Turn.objects.order_by("-pk").first()
        assert newest is not None
        target = shared.url("shared-vote", newest.completion_id)
        answers.append(client.post(target, {"verdict": "up"}, headers=HTMX))
    assert [answer.status_code for answer in answers] == [200, 200, 422, 422]
    assert "limit of thumbs" in answers[-1].content.decode()
    assert Vote.objects.count() == 2
    assert len(set(Vote.objects.values_list("user", flat=True))) == 2


def test_unknown_fields_are_refused(shared: Shared) -> None:
    client = Client()
    shared.say(client)
    turn = Turn.objects.get()
    target = shared.url("shared-vote", turn.completion_id)
    client.post(target, {"verdict": "up", "user": "1"})
    client.post(shared.url("shared-send"), {"text": "x", "choice": "base"})
    assert not Vote.objects.exists()
    assert Turn.objects.count() == 1
    assert client.get(shared.url("shared") + "?as=admin", follow=False).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(shared.url("shared-send"), {"text": "x"}).status_code == 403


def test_admin_creates_a_link_sees_it_once_and_revokes_it(
    served: Project, admin: User, viewer: User, outsider: User, as_user: As
) -> None:
    target, client = reverse("share-links", args=[served.slug]), as_user(admin)
    body = {
        "label": "Board",
        "choice": "live",
        "days": "7",
        "messages_limit": "10",
        "messages_each": "5",
        "votes_limit": "3",
    }
    assert as_user(viewer).get(target).status_code == 403
    assert as_user(outsider).post(target, body).status_code == 404
    assert client.post(target, {**body, "days": "1000"}).status_code == 400
    assert client.post(target, {**body, "digest": "x"}).status_code == 400
    with pytest.raises(UserError, match="no such version"):
        Shared(served, admin, choice="other@1")
    assert not ShareLink.objects.exists()

    page = client.post(target, body).content.decode()
    link = ShareLink.objects.get()
    [secret] = {part.split("/")[0] for part in page.split("http://testserver/s/")[1:]}
    assert Client().get(f"/s/{secret}/").status_code == 200
    assert secret not in client.get(target).content.decode()
    assert link.digest not in page
    assert "Share" in client.get(reverse("demo", args=[served.slug])).content.decode()
    assert "Share" not in as_user(viewer).get(reverse("demo", args=[served.slug])).content.decode()
    revoke = reverse("share-link-revoke", args=[served.slug, link.pk])
    assert as_user(viewer).post(revoke).status_code == 403
    assert (
        as_user(outsider).post(reverse("share-link-revoke", args=["other", link.pk])).status_code
        == 404
    )
    client.post(revoke)
    assert Client().get(f"/s/{secret}/").status_code == 404
    actions = AuditEvent.objects.filter(actor=admin).values_list("action", flat=True)
    assert list(actions) == ["share.create", "share.revoke"]
