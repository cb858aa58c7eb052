"""Members, their roles, and invitation links."""

import datetime as dt
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, Invitation, Membership, Role, Scope, User
from feedback_app.feedback.members.services import (
    invitation_accept,
    invitation_create,
    member_set,
)
from feedback_app.feedback.models import (
    Completion,
    Lease,
    Project,
    Source,
    Verdict,
    Vote,
    Webhook,
)
from feedback_app.feedback.models.webhooks import Event
from feedback_app.feedback.projects.archive import project_archive, project_restore
from feedback_app.feedback.tokens.services import token_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.feedback.webhooks.events import event_write
from feedback_app.feedback.webhooks.services import webhook_create
from feedback_app.privacy.erasure import person_erase
from feedback_app.serving.share_links.services import link_create
from feedback_app.web.errors import UserError
from tests.conftest import PASSWORD
from tests.feedback.queue.test_concurrency import at_once

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
Make = Callable[..., list[Completion]]
NEW = {"role": "annotator", "days": "7", "max_uses": "1"}
JO = {"email": "Jo@Example.com", "name": "Jo", "password": "a long way to go"}


def url(name: str, *args: object) -> str:
    return reverse(name, args=["bot", *args])


def role_of(user: User) -> str | None:
    roles = Membership.objects.filter(user=user, project__slug="bot")
    return roles.values_list("role", flat=True).first()


def link_for(admin: User, role: Role = Role.ANNOTATOR, **fields: Any) -> str:
    """Return the path of a new invitation."""
    actor = Membership.objects.select_related("project").get(user=admin, project__slug="bot")
    given = {"days": 7, "max_uses": 1, **fields}
    return reverse("invitation", args=[invitation_create(role=role, actor=actor, **given)[1]])


@pytest.fixture
def helper(project: Project) -> User:
    """An admin who is not an owner."""
    user = User.objects.create_user("hel@example.com", PASSWORD, name="Hel Per")
    member_set(project=project, user=user, role=Role.ADMIN)
    return user


# -- roles


@pytest.mark.parametrize(
    ("by", "whom", "role", "done"),
    [
        ("admin", "annotator", "owner", True),
        ("admin", "helper", "viewer", True),
        ("helper", "annotator", "viewer", True),
        ("helper", "annotator", "admin", False),
        ("helper", "annotator", "owner", False),
        ("helper", "admin", "viewer", False),
        ("helper", "helper", "owner", False),
        ("admin", "admin", "viewer", False),  # the last owner
    ],
)
def test_role_is_changed_only_by_a_higher_role(
    by: str, whom: str, role: str, done: bool, as_user: As, request: pytest.FixtureRequest
) -> None:
    people = {name: request.getfixturevalue(name) for name in ("admin", "annotator", "helper")}
    before = role_of(people[whom])

    as_user(people[by]).post(url("member-change", people[whom].pk), {"role": role})

    assert role_of(people[whom]) == (role if done else before)
    changes = AuditEvent.objects.filter(action="member.change")
    assert [(e.actor, e.target, e.reason) for e in changes] == (
        [(people[by], f"person {people[whom].pk}", f"{before} → {role}")] if done else []
    )


def test_admin_cannot_demote_or_remove_another_admin(
    helper: User, annotator: User, project: Project, as_user: As
) -> None:
    member_set(project=project, user=annotator, role=Role.ADMIN)

    as_user(helper).post(url("member-change", annotator.pk), {"role": "viewer"})
    as_user(helper).post(url("member-remove", annotator.pk))

    assert role_of(annotator) == "admin"


def test_removed_member_loses_access_and_leases_and_votes_remain(
    helper: User, annotator: User, as_user: As, make_completions: Make
) -> None:
    voted, held = make_completions(2)
    vote_cast(completion=voted, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    soon = timezone.now() + dt.timedelta(minutes=5)
    Lease.objects.create(completion=held, user=annotator, expires_at=soon)

    as_user(helper).post(url("member-remove", annotator.pk))

    assert as_user(annotator).get(url("annotate")).status_code == 404
    assert (Vote.objects.count(), Lease.objects.count()) == (1, 0)


def test_last_active_owner_cannot_leave(
    project: Project, admin: User, helper: User, as_user: As
) -> None:
    member_set(project=project, user=helper, role=Role.OWNER)
    User.objects.filter(pk=helper.pk).update(is_active=False)

    as_user(admin).post(url("member-remove", admin.pk))
    assert role_of(admin) == "owner"

    User.objects.filter(pk=helper.pk).update(is_active=True)
    answer = as_user(admin).post(url("member-remove", admin.pk))
    assert (role_of(admin), answer["Location"]) == (None, "/")


@pytest.mark.django_db(transaction=True)
def test_two_owners_leaving_at_once_leave_one(
    project: Project, admin: User, helper: User, as_user: As
) -> None:
    member_set(project=project, user=helper, role=Role.OWNER)
    pairs = [(as_user(user), user.pk) for user in (admin, helper)]

    def leave(client: Client, pk: int) -> None:
        client.post(url("member-remove", pk))

    assert at_once([lambda pair=pair: leave(*pair) for pair in pairs]) == []

    assert project.memberships.filter(role=Role.OWNER).count() == 1


def test_members_pages_are_for_admins_of_the_project(
    project: Project, annotator: User, outsider: User, admin: User, as_user: As
) -> None:
    link_for(admin)
    revoke = url("invitation-revoke", Invitation.objects.get().pk)
    for client, status in ((as_user(annotator), 403), (as_user(outsider), 404)):
        assert client.get(url("people")).status_code == status
        for path in (
            url("people"),
            url("member-change", annotator.pk),
            url("member-remove", annotator.pk),
            revoke,
        ):
            assert client.post(path, {"role": "owner"}).status_code == status
    assert as_user(admin).post(url("member-remove", outsider.pk)).status_code == 404
    theirs = reverse("invitation-revoke", args=["other", Invitation.objects.get().pk])
    assert as_user(outsider).post(theirs).status_code == 404
    assert Invitation.objects.open().exists()


# -- the list


def test_list_filters_sorts_and_keeps_its_parameters(
    admin: User, annotator: User, viewer: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions(1)
    vote_cast(completion=completion, verdict=Verdict.UP, by=viewer, source=Source.DEMO)
    User.objects.filter(pk=annotator.pk).update(is_active=False)
    client = as_user(admin)

    def shown(query: str) -> list[str]:
        page = client.get(f"{url('people')}?{query}")
        return [member.user.name for member in page.context["page"]]

    assert shown("") == ["Ada Admin", "Ann Otator", "Vic Viewer"]
    assert shown("sort=votes")[0] == "Vic Viewer"
    assert shown("role=viewer") == ["Vic Viewer"]
    assert shown("q=ANN%40") == ["Ann Otator"]
    assert shown("state=deactivated") == ["Ann Otator"]
    assert b"No members match" in client.get(url("people") + "?q=zzz").content


@pytest.mark.parametrize(
    "query", ["sort=user__password", "user__password=x", "role=god", "_connector=OR", "q=%00"]
)
def test_list_refuses_unknown_parameters(query: str, admin: User, project: Project, as_user: As):
    assert as_user(admin).get(f"{url('people')}?{query}").status_code == 400


def test_list_queries_do_not_grow_with_people(
    project: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        user = User.objects.create_user(f"p{number}@example.com", None)
        member_set(project=project, user=user, role=Role.VIEWER)
        link_for(admin)
    client = as_user(admin)

    with django_assert_max_num_queries(10):
        client.get(url("people"))


# -- what an admin has made, once they are no admin any more


def made_by(user: User, project: Project) -> tuple[str, str, Webhook]:
    """Create a token, a share link and a webhook; return the secrets of the first two."""
    token = token_create(project=project, name="Shop", scopes=list(Scope), by=user)[1]
    limits = {"days": 7, "messages_limit": 9, "messages_each": 9, "votes_limit": 9}
    link = link_create(project=project, by=user, label="Board", choice="base", **limits)[1]
    address, events = "https://93.184.215.14/hook", [Event.VOTE_CAST]
    webhook = webhook_create(project=project, url=address, events=events, by=user)[0]
    return token, link, webhook


def works(made: tuple[str, str, Webhook]) -> list[bool]:
    """Return whether the token and the link are accepted, and the webhook gets events."""
    token, link, webhook = made
    api = Client().get("/v1/models", headers={"Authorization": f"Bearer {token}"})
    page = Client().get(reverse("shared", args=[link]))
    before = webhook.deliveries.count()
    event_write(project=webhook.project, event=Event.VOTE_CAST, key=uuid4().hex, data={})
    told = webhook.deliveries.count() > before
    return [api.status_code == 200, page.status_code == 200, told]


@pytest.mark.parametrize("how", ["demoted", "removed", "left", "erased", "erased themselves"])
def test_tokens_links_and_webhooks_of_a_former_admin_end(
    how: str, project: Project, admin: User, helper: User, as_user: As
) -> None:
    theirs, others = made_by(helper, project), made_by(admin, project)
    assert works(theirs) == works(others) == [True, True, True]
    owner, former, number = as_user(admin), as_user(helper), helper.pk

    if how == "demoted":
        page = owner.post(url("member-change", number), {"role": "annotator"}, follow=True)
    elif how == "removed":
        page = owner.post(url("member-remove", number), follow=True)
    elif how == "left":
        page = former.post(url("me-leave"), follow=True)
    elif how == "erased":
        owner.post(url("person-erase", number), {"email": helper.email}, follow=True)
    else:
        person_erase(user=helper, by=helper)

    assert works(theirs) == [False, False, False]
    assert works(others) == [True, True, True]
    ended = ["token.revoke", "share.revoke", "webhook.pause"]
    revoked = AuditEvent.objects.filter(action__in=ended)
    actor = {"left": helper, "erased themselves": None}.get(how, admin)
    assert [event.actor for event in revoked] == [actor] * 3
    if how in ("demoted", "removed", "left"):
        text = page.content.decode()
        assert "API token Shop" in text
        assert "share link Board" in text
        assert "webhook https://93.184.215.14/hook (paused)" in text


def test_admin_who_becomes_an_owner_keeps_tokens_links_and_webhooks(
    project: Project, admin: User, helper: User, as_user: As
) -> None:
    theirs = made_by(helper, project)

    page = as_user(admin).post(url("member-change", helper.pk), {"role": "owner"}, follow=True)

    assert works(theirs) == [True, True, True]
    assert "Ended with" not in page.content.decode().split('id="toasts"')[1]


def test_page_of_a_deactivated_admin_lists_tokens_and_webhooks(
    project: Project, admin: User, helper: User, as_user: As
) -> None:
    made_by(helper, project)
    owner, page = as_user(admin), reverse("person", args=["bot", helper.pk])
    owner.post(url("person-deactivate", helper.pk))

    text = owner.get(page).content.decode()
    assert "Shop" in text and "https://93.184.215.14/hook" in text
    owner.post(reverse("webhook-pause", args=["bot", Webhook.objects.get().pk]))
    assert "https://93.184.215.14/hook" not in owner.get(page).content.decode()


# -- invitations


def test_link_is_shown_once_and_stored_as_a_hash(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)

    made = client.post(url("people"), NEW)

    link = made.content.decode().split("<code>")[1].split("</code>")[0]
    secret = link.rstrip("/").rpartition("/")[2]
    assert Client().get(link).status_code == 200
    assert "no-store" in made["Cache-Control"]
    assert secret not in client.get(url("people")).content.decode()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_invitation")
        stored = " ".join(str(value) for row in cursor.fetchall() for value in row)
    assert secret[:6] in stored
    assert secret[6:] not in stored


@pytest.mark.parametrize(
    "change",
    [
        {"role": "owner"},
        {"role": "admin"},
        {"role": "god"},
        {"days": "0"},
        {"days": "91"},
        {"max_uses": "0"},
        {"email": "no address"},
        {"email": "jo@example.com", "max_uses": "2"},
        {"created_by": "1"},
    ],
)
def test_admin_cannot_make_an_invalid_link_or_one_for_a_higher_role(
    change: dict[str, str], helper: User, as_user: As
) -> None:
    assert as_user(helper).post(url("people"), NEW | change).status_code in (400, 422)
    assert not Invitation.objects.exists()


def test_link_for_an_address_is_mailed_and_limited_to_it(
    project: Project, admin: User, outsider: User, as_user: As
) -> None:
    as_user(admin).post(url("people"), NEW | {"email": "Jo@example.com"})

    [sent] = mail.outbox
    assert sent.to == ["jo@example.com"]
    link = next(line for line in sent.body.splitlines() if line.startswith("http"))
    assert as_user(outsider).post(link).status_code == 400
    assert role_of(outsider) is None
    other = Client().post(link, JO | {"email": "mo@example.com"})
    assert other.status_code == 400
    assert not User.objects.filter(email="mo@example.com").exists(), "no account was created"
    assert Client().post(link, JO).status_code == 302


def test_sign_up_by_link_makes_an_account_and_a_member(project: Project, admin: User) -> None:
    link, client = link_for(admin), Client()

    answer = client.post(link, JO, follow=True)

    jo = User.objects.get(email="jo@example.com")
    assert get_user(client) == jo
    assert (role_of(jo), jo.name, jo.check_password(JO["password"])) == ("annotator", "Jo", True)
    assert answer.redirect_chain[-1][0] == url("annotate")
    assert Client().get(link).status_code == 404, "the link was for one use"
    assert AuditEvent.objects.filter(action="invitation.accept", actor=jo).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"password": "short"},
        {"password": "password"},
        {"email": "x"},
        {"role": "owner"},
        {"is_superuser": "1"},
        {"email": "ADMIN@example.com"},  # already has an account
    ],
)
def test_invalid_sign_up_is_refused_and_does_not_count_as_a_use(
    change: dict[str, str], project: Project, admin: User
) -> None:
    answer = Client().post(link_for(admin), JO | change)

    assert answer.status_code == 400
    assert User.objects.count() == 1
    assert Invitation.objects.get().used == 0


def test_signed_in_person_joins_once_and_is_never_demoted(
    project: Project, admin: User, outsider: User, annotator: User, as_user: As
) -> None:
    link = link_for(admin, max_uses=3)
    client = as_user(outsider)

    assert b"eve@example.com" in client.get(link).content
    assert [client.post(link).status_code for _ in range(2)] == [302, 302]
    as_user(admin).post(link)
    assert (role_of(outsider), role_of(admin)) == ("annotator", "owner")
    assert Invitation.objects.get().used == 1, "a second click must not count as a use"
    as_user(annotator).post(link_for(admin, Role.ADMIN))
    assert role_of(annotator) == "admin"


def test_expired_or_revoked_link_is_404(
    project: Project, admin: User, helper: User, as_user: As
) -> None:
    late, revoked, demoted = link_for(admin), link_for(admin), link_for(helper)
    first, second, third = Invitation.objects.order_by("pk")
    Invitation.objects.filter(pk=first.pk).update(expires_at=timezone.now())
    as_user(admin).post(url("invitation-revoke", second.pk))
    User.objects.filter(pk=helper.pk).update(is_active=False)
    assert Client().get(demoted).status_code == 404, "its creator is deactivated"
    User.objects.filter(pk=helper.pk).update(is_active=True)
    assert Client().get(demoted).status_code == 200
    as_user(admin).post(url("member-change", helper.pk), {"role": "annotator"})

    for link in (late, revoked, demoted, "/invitations/nothing/"):
        assert Client().get(link).status_code == 404
        assert Client().post(link, JO).status_code == 404
    said = [Client().get(link).content.decode() for link in (late, revoked, "/invitations/no/")]
    assert "This invitation has expired" in said[0]
    assert "was revoked" in " ".join(said[1].split())
    assert "There is nothing here" in said[2]
    third.refresh_from_db()
    assert [i.state for i in Invitation.objects.order_by("pk")] == ["expired", "revoked", "revoked"]


@pytest.mark.parametrize("how", ["demoted", "removed", "left", "erased"])
def test_former_admin_cannot_return_by_their_own_invitation(
    how: str, project: Project, admin: User, helper: User, as_user: As
) -> None:
    theirs, others = link_for(helper), link_for(admin)

    if how == "demoted":
        as_user(admin).post(url("member-change", helper.pk), {"role": "viewer"})
    elif how == "removed":
        as_user(admin).post(url("member-remove", helper.pk))
    elif how == "left":
        as_user(helper).post(url("me-leave"))
    else:
        as_user(admin).post(url("person-erase", helper.pk), {"email": helper.email})

    as_user(helper).post(theirs)
    assert Client().get(theirs).status_code == 404
    assert role_of(helper) == ("viewer" if how == "demoted" else None)
    assert Client().get(others).status_code == 200


def test_nobody_joins_an_archived_project(
    project: Project, admin: User, outsider: User, as_user: As
) -> None:
    link = link_for(admin, max_uses=2)
    found = Invitation.objects.select_related("project").get()
    project_archive(project=project, by=admin)

    assert Client().get(link).status_code == 404
    assert Client().post(link, JO).status_code == 404
    assert as_user(outsider).post(link).status_code == 404
    with pytest.raises(UserError, match="archived"):  # while the page was open
        invitation_accept(invitation=found, user=outsider)
    assert role_of(outsider) is None

    project_restore(project=project, by=admin)
    as_user(outsider).post(link)
    assert role_of(outsider) == "annotator"


@pytest.mark.django_db(transaction=True)
def test_concurrent_sign_ups_do_not_exceed_the_uses_of_the_link(
    project: Project, admin: User
) -> None:
    link = link_for(admin, max_uses=2)

    def come(number: int) -> None:
        Client().post(link, JO | {"email": f"jo{number}@example.com"})

    assert at_once([lambda number=number: come(number) for number in range(6)]) == []

    assert Membership.objects.filter(user__email__startswith="jo").count() == 2
    assert User.objects.filter(email__startswith="jo").count() == 2
    assert Invitation.objects.get().used == 2


@pytest.mark.django_db(transaction=True)
def test_form_that_is_sent_several_times_at_once_makes_one_account(
    project: Project, admin: User
) -> None:
    link = link_for(admin, max_uses=6)
    answers = []

    def come() -> None:
        answers.append(Client().post(link, JO))

    assert at_once([come] * 6) == []

    assert sorted(answer.status_code for answer in answers) == [302, 400, 400, 400, 400, 400]
    refused = next(answer.content.decode() for answer in answers if answer.status_code == 400)
    assert "There is already an account with this address. Sign in instead." in refused
    assert role_of(User.objects.get(email="jo@example.com")) == "annotator"
    assert Invitation.objects.get().used == 1
