"""Owners and admins are told what happened, once, where they want it."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Notification, NotificationKind, Project
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery
from feedback_app.feedback.notifications.digest import digest_send, digests_due
from feedback_app.feedback.notifications.services import (
    notifications_choose,
    notifications_expire,
    notify,
)

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]


def tell(project: Project, key: str = "1", by: User | None = None) -> None:
    notify(
        project=project,
        kind=NotificationKind.ENGINE_DOWN,
        key=key,
        text="No engine answers.",
        path=reverse("runs", args=[project.slug]),
        by=by,
    )


def texts(user: User) -> list[str]:
    return list(user.notifications.order_by("pk").values_list("text", flat=True))


def test_owners_and_admins_are_told_once(
    project: Project, admin: User, annotator: User, second_annotator: User
) -> None:
    member_set(project=project, user=second_annotator, role=Role.ADMIN)
    tell(project)
    tell(project)
    assert texts(admin) == texts(second_annotator) == ["No engine answers."]
    assert texts(annotator) == []


def test_nobody_is_told_what_they_did(project: Project, admin: User) -> None:
    tell(project, by=admin)
    assert texts(admin) == []


def test_deactivated_people_are_not_told(project: Project, admin: User) -> None:
    User.objects.filter(pk=admin.pk).update(is_active=False)
    tell(project)
    assert texts(admin) == []


def test_list_marks_what_is_new_until_it_was_opened(
    project: Project, admin: User, as_user: AsUser
) -> None:
    client = as_user(admin)
    assert "No notifications yet" in client.get("/notifications/").content.decode()
    tell(project)
    home = client.get(reverse("runs", args=[project.slug])).content.decode()
    assert "new notifications" in home

    first = client.get("/notifications/").content.decode()
    assert "No engine answers." in first
    assert first.count('<span class="chip warning">New</span>') == 2  # in the menu, and the row
    again = client.get("/notifications/").content.decode()
    assert "No engine answers." in again
    assert '<span class="chip warning">New</span>' not in again


def test_mark_in_the_bar_costs_no_query(project: Project, admin: User, as_user: AsUser) -> None:
    client, page = as_user(admin), reverse("webhooks", args=[project.slug])
    client.get(page)
    with CaptureQueriesContext(
        connection,
    ) as before:
        client.get(page)
    tell(project)
    with CaptureQueriesContext(connection) as after:
        assert "new notifications" in client.get(page).content.decode()
    assert len(after) == len(before)


def test_list_needs_few_queries_however_long_it_is(
    project: Project, admin: User, as_user: AsUser
) -> None:
    client = as_user(admin)
    tell(project)
    client.get("/notifications/")
    with CaptureQueriesContext(connection) as few:
        client.get("/notifications/")
    for number in range(40):
        tell(project, key=f"n{number}")
    client.get("/notifications/")
    with CaptureQueriesContext(connection) as many:
        page = client.get("/notifications/").content.decode()
    assert len(many) == len(few)
    assert page.count("No engine answers.") == 30


def test_former_admins_see_nothing_of_the_project(
    project: Project, admin: User, second_annotator: User, as_user: AsUser
) -> None:
    member_set(project=project, user=second_annotator, role=Role.ADMIN)
    tell(project)
    member_set(project=project, user=second_annotator, role=Role.ANNOTATOR)
    page = as_user(second_annotator).get("/notifications/").content.decode()
    assert "No engine answers." not in page
    assert "No notifications yet" in page


def test_each_member_chooses_what_and_where(project: Project, admin: User, as_user: AsUser) -> None:
    client, page = as_user(admin), reverse("notification-choice", args=[project.slug])
    assert client.get(page).content.decode().count("checked") == len(NotificationKind)

    assert client.post(page, {"listed": ["run.failed"], "mailed": ["disk.low"]}).status_code == 302
    tell(project)
    assert texts(admin) == []
    assert client.get(page).content.decode().count("checked") == 2

    assert client.post(page, {"mailed": ["engine.down"]}).status_code == 302
    tell(project, key="2")
    [only] = Notification.objects.filter(user=admin)
    assert (only.listed, only.mail_due) == (False, True)
    admin.refresh_from_db()
    assert not admin.has_news


def test_unknown_kinds_are_refused(project: Project, admin: User, as_user: AsUser) -> None:
    client, page = as_user(admin), reverse("notification-choice", args=[project.slug])
    refused = client.post(page, {"listed": ["no.such"]})
    assert refused.status_code == 400
    assert "no.such" in refused.content.decode()
    assert client.post(page, {"other": "1"}).status_code == 400
    assert client.get("/notifications/?page=x").status_code == 400


def test_webhooks_get_the_event(project: Project, admin: User) -> None:
    Webhook.objects.create(
        project=project, url="https://example.com", secret="s", events=[Event.ENGINE_DOWN]
    )
    tell(project)
    tell(project)
    [delivery] = WebhookDelivery.objects.all()
    assert '"kind": "engine.down"' in delivery.body


def mail_wanted(project: Project, admin: User) -> None:
    notifications_choose(project=project, user=admin, listed=[], mailed=["engine.down"])


def test_digest_is_one_mail_a_day(project: Project, admin: User, settings: Settings) -> None:
    settings.SITE_URL = "https://prospect.example.com"
    mail_wanted(project, admin)
    tell(project, key="1")
    tell(project, key="2")
    assert digests_due() == [admin.pk]
    assert digest_send(admin.pk)
    [message] = mail.outbox
    assert message.to == [admin.email]
    assert message.subject == "Prospect: 2 notifications"
    assert message.body.count("- Support bot: No engine answers.") == 2
    assert "https://prospect.example.com/projects/bot/runs/" in message.body

    tell(project, key="3")
    assert digests_due() == []
    assert not digest_send(admin.pk)
    User.objects.filter(pk=admin.pk).update(digest_at=timezone.now() - dt.timedelta(hours=25))
    assert digest_send(admin.pk)
    assert mail.outbox[1].subject == "Prospect: 1 notification"


def test_digest_says_nothing_of_a_project_that_a_person_has_left(
    project: Project, admin: User
) -> None:
    mail_wanted(project, admin)
    tell(project)
    member_set(project=project, user=admin, role=Role.ANNOTATOR)
    assert digests_due() == []
    assert not digest_send(admin.pk)
    assert mail.outbox == []


def test_digest_that_the_mail_server_refuses_is_sent_later(
    project: Project, admin: User, settings: Settings
) -> None:
    mail_wanted(project, admin)
    tell(project)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9  # nothing listens there
    assert not digest_send(admin.pk)
    assert Notification.objects.filter(mail_due=True).exists()
    assert digests_due() == []

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    admin.refresh_from_db()
    assert admin.digest_at is not None
    User.objects.update(digest_at=admin.digest_at - dt.timedelta(minutes=31))
    assert digest_send(admin.pk)
    assert len(mail.outbox) == 1


def test_old_notifications_are_deleted(project: Project, admin: User) -> None:
    tell(project, key="old")
    Notification.objects.update(created_at=timezone.now() - dt.timedelta(days=91))
    tell(project, key="new")
    notifications_expire()
    assert Notification.objects.count() == 1
