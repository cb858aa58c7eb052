"""Webhooks: events, signatures, retries and pages."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, Role, User
from feedback_app.feedback.imports.services import import_claim, import_execute, import_start
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Source, Verdict
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery
from feedback_app.feedback.tasks import dispatch, link_audit_events, webhook_send
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.feedback.webhooks import http_client
from feedback_app.feedback.webhooks.delivery import (
    KEPT,
    MAX_ATTEMPTS,
    deliveries_expire,
    webhook_work,
    webhooks_due,
)
from feedback_app.feedback.webhooks.services import (
    delivery_repeat,
    ping_write,
    webhook_create,
    webhook_switch,
)
from feedback_app.serving.releases.services import release_flip
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_cancel, run_end, run_request
from tests.browser.world import finish
from tests.conftest import MakeCompletions, hand_out
from tests.feedback.queue.test_concurrency import at_once
from tests.feedback.webhooks.receiver import Receiver, receiving

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    with receiving() as server:
        yield server


@pytest.fixture
def made(project: Project, admin: User, receiver: Receiver) -> tuple[Webhook, str]:
    """A webhook subscribed to all events, and its secret."""
    return webhook_create(project=project, url=receiver.url, events=list(Event), by=admin)


def events_sent(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in receiver.received]


def overdue() -> None:
    """Move the next attempt of all deliveries into the past."""
    WebhookDelivery.objects.update(next_at=timezone.now())


# -- events


def test_vote_is_sent_once_and_again_when_it_changes(
    made: tuple[Webhook, str],
    annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
    receiver: Receiver,
) -> None:
    [completion] = make_completions(1)
    hand_out(annotator, completion)
    client = as_user(annotator)
    path = reverse("vote", args=["bot", completion.pk])

    for verdict in ("up", "up", "down"):
        client.post(path, {"verdict": verdict})
    vote_cast(completion=completion, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE)
    webhook_work(made[0].pk)

    first, second = events_sent(receiver)
    assert (first["type"], first["project"]) == ("vote.cast", "bot")
    assert (first["data"]["completion_id"], first["data"]["verdict"]) == (completion.pk, "up")
    assert second["data"]["verdict"] == "down"
    assert annotator.email not in receiver.received[0].body.decode()


def test_vote_without_subscribed_webhook_takes_no_extra_query(
    project: Project,
    admin: User,
    annotator: User,
    receiver: Receiver,
    make_completions: MakeCompletions,
) -> None:
    def asked() -> bool:
        """Return whether a vote queries the webhook table."""
        [completion] = make_completions(1)
        completion.project.refresh_from_db()
        with CaptureQueriesContext(connection) as queries:
            vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.API)
        return any("feedback_webhook" in query["sql"] for query in queries)

    assert not asked()
    webhook_create(project=project, url=receiver.url, events=[Event.RUN_FINISHED], by=admin)
    assert not asked()
    votes, _ = webhook_create(project=project, url=receiver.url, events=[Event.VOTE_CAST], by=admin)
    assert asked()
    webhook_switch(webhook=votes, on=False, by=admin)
    assert not asked()


def test_vote_rolled_back_is_not_sent(
    made: tuple[Webhook, str], annotator: User, make_completions: MakeCompletions
) -> None:
    [completion] = make_completions(1)
    completion.project.refresh_from_db()

    with pytest.raises(RuntimeError), transaction.atomic():
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.API)
        assert WebhookDelivery.objects.exists()
        raise RuntimeError

    assert not WebhookDelivery.objects.exists()


@pytest.mark.slow
def test_finished_runs_releases_and_imports_are_sent(
    made: tuple[Webhook, str], voted_project: Project, admin: User, receiver: Receiver
) -> None:
    WebhookDelivery.objects.all().delete()
    project = Project.objects.get(pk=voted_project.pk)
    good = run_claim(run_request(project=project, by=admin).pk)
    assert good is not None
    adapter = finish(good, up=0.8)
    bad = run_claim(run_request(project=project, by=admin).pk)
    assert bad is not None
    run_end(claim=bad, status=Run.Status.FAILED, error="The loss is NaN.")
    run_end(claim=bad, status=Run.Status.FAILED, error="Too late.")
    run_cancel(run=run_request(project=project, by=admin), by=admin)
    release_flip(project=project, adapter=adapter, before=None, by=admin, reason="Better")
    import_a_row(project, admin)

    webhook_work(made[0].pk)

    def facts(event: dict[str, Any], *names: str) -> tuple[Any, ...]:
        return (event["type"], *(event["data"][name] for name in names))

    runs = [each for each in events_sent(receiver) if each["type"] == "run.finished"]
    assert [facts(each, "number", "status", "adapter", "error") for each in runs] == [
        ("run.finished", 1, "succeeded", "bot@1", ""),
        ("run.finished", 2, "failed", None, "The loss is NaN."),
        ("run.finished", 3, "cancelled", None, ""),
    ]
    rest = [each for each in events_sent(receiver) if each["type"] != "run.finished"]
    assert facts(rest[0], "path") == ("gate.decided", "/projects/bot/runs/1/")
    assert facts(rest[1], "version", "before") == ("release.changed", "bot@1", "base")
    assert facts(rest[2], "status", "rows", "imported") == ("import.finished", "done", 1, 1)
    assert len(rest) == 3


def import_a_row(project: Project, admin: User) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    from feedback_app.feedback.imports.uploads import import_upload

    row = b'{"prompt": "How long?", "completion": "An hour.", "label": true}'
    job = import_upload(project=project, by=admin, upload=SimpleUploadedFile("a.jsonl", row))
    import_start(job=job, by=admin)
    claim = import_claim(job.pk)
    assert claim is not None
    import_execute(claim)


def test_webhook_gets_only_its_events_and_project(
    project: Project, admin: User, outsider: User, receiver: Receiver
) -> None:
    webhook_create(project=project, url=receiver.url, events=[Event.VOTE_CAST], by=admin)
    other = Project.objects.get(slug="other")
    webhook_create(project=other, url=receiver.url, events=list(Event), by=outsider)

    release_flip(project=project, adapter=None, before=None, by=admin, reason="")

    assert not WebhookDelivery.objects.exists()


# -- delivery


def test_request_is_signed_as_standard_webhooks_describes(
    made: tuple[Webhook, str], receiver: Receiver
) -> None:
    webhook, secret = made
    ping_write(webhook=webhook)

    webhook_work(webhook.pk)

    [request] = receiver.received
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp = request.headers["webhook-timestamp"]
    content = f"{request.headers['webhook-id']}.{stamp}.".encode() + request.body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{signature}"
    assert abs(time.time() - int(stamp)) < 60
    assert (request.path, request.headers["Content-Type"]) == ("/hook", "application/json")
    assert len(key) == 32
    stored = str(Webhook.objects.values_list("secret", flat=True))
    assert secret not in stored, "it is encrypted"


@pytest.mark.slow
def test_failure_is_retried_with_growing_delays_and_then_given_up(
    made: tuple[Webhook, str], receiver: Receiver
) -> None:
    webhook = made[0]
    ping_write(webhook=webhook)
    receiver.answers = [(500, "")] * MAX_ATTEMPTS

    waits = []
    for attempt in range(MAX_ATTEMPTS):
        assert webhook_work(webhook.pk) == 1
        assert webhook_work(webhook.pk) == 0, "the retry is not due yet"
        delivery = WebhookDelivery.objects.get()
        assert (delivery.attempts, delivery.answer_status) == (attempt + 1, 500)
        waits.append((delivery.next_at - timezone.now()).total_seconds())
        overdue()

    assert 20 < waits[0] < 40
    assert all(after > before * 1.5 for before, after in pairwise(waits))
    assert (delivery.status, delivery.error) == ("failed", "The server answered 500.")
    assert webhook_work(webhook.pk) == 0
    ids = {each.headers["webhook-id"] for each in receiver.received}
    assert ids == {delivery.key}, "a retry has the same id"
    event = AuditEvent.objects.get(action="webhook.give_up")
    assert f"after {MAX_ATTEMPTS} attempts: The server answered 500." in event.reason

    delivery_repeat(delivery=delivery)
    assert webhook_work(webhook.pk) == 1
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.error) == ("delivered", 1, "")


def test_unreachable_receiver_gets_the_event_when_it_is_back(
    project: Project, admin: User, receiver: Receiver
) -> None:
    away = receiver.url.replace(str(receiver.server_port), "9")
    webhook, _ = webhook_create(project=project, url=away, events=list(Event), by=admin)
    ping_write(webhook=webhook)

    webhook_work(webhook.pk)

    delivery = WebhookDelivery.objects.get()
    assert (delivery.status, delivery.error) == (
        "waiting",
        "The server could not be reached: ConnectError.",
    )
    Webhook.objects.update(url=receiver.url)
    overdue()
    webhook_work(webhook.pk)
    delivery.refresh_from_db()
    assert delivery.status == "delivered"


def test_address_with_other_letters_than_ascii_is_reached(
    project: Project, admin: User, receiver: Receiver
) -> None:
    url = f"{receiver.url}/prüfung?wer=zoë"
    webhook, _ = webhook_create(project=project, url=url, events=list(Event), by=admin)
    ping_write(webhook=webhook)

    assert webhook_work(webhook.pk) == 1

    assert WebhookDelivery.objects.get().status == "delivered"
    assert receiver.received[0].path == "/hook/pr%C3%BCfung?wer=zo%C3%AB"


def test_secret_that_no_key_decrypts_is_named_and_given_up(
    made: tuple[Webhook, str], receiver: Receiver
) -> None:
    webhook = made[0]
    Webhook.objects.update(secret="sealed by another SECRET_KEY")
    ping_write(webhook=webhook)

    for _ in range(MAX_ATTEMPTS):
        assert webhook_work(webhook.pk) == 1
        overdue()

    delivery = WebhookDelivery.objects.get()
    assert delivery.status == "failed"
    assert "SECRET_KEY has changed" in delivery.error
    assert not receiver.received


def test_killed_worker_leaves_a_delivery_that_is_sent_later(
    made: tuple[Webhook, str], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = made[0]
    ping_write(webhook=webhook)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("feedback_app.feedback.webhooks.delivery.post", killed)
        webhook_work(webhook.pk)

    Webhook.objects.update(
        busy_until=timezone.now() + timedelta(seconds=60)
    )  # the state after SIGKILL
    overdue()
    assert (webhooks_due(), webhook_work(webhook.pk)) == ([], 0)
    Webhook.objects.update(busy_until=timezone.now() - timedelta(seconds=1))
    assert (webhooks_due(), webhook_work(webhook.pk)) == ([webhook.pk], 1)
    assert len(receiver.received) == 1


def test_receiver_that_never_finishes_times_out(
    made: tuple[Webhook, str], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "SECONDS", 0.3)
    receiver.drips = True
    ping_write(webhook=made[0])

    webhook_work(made[0].pk)  # returns, although the receiver would continue without end

    delivery = WebhookDelivery.objects.get()
    assert (delivery.status, delivery.error) == (
        "waiting",
        "The server could not be reached: ReadTimeout.",
    )


def test_few_webhooks_are_sent_at_a_time_oldest_due_first(
    project: Project, admin: User, receiver: Receiver
) -> None:
    hooks = [
        webhook_create(project=project, url=receiver.url, events=list(Event), by=admin)[0]
        for _ in range(4)
    ]
    for ago, webhook in zip((1, 9, 5, 3), hooks, strict=True):
        ping_write(webhook=webhook)
        since = timezone.now() - timedelta(seconds=ago)
        webhook.deliveries.update(next_at=since)

    assert webhooks_due() == [hooks[1].pk, hooks[2].pk]
    soon = timezone.now() + timedelta(seconds=60)
    Webhook.objects.filter(pk__in=[hooks[1].pk, hooks[2].pk]).update(busy_until=soon)
    assert (webhooks_due(), webhook_work(hooks[0].pk)) == ([], 0)


def test_tick_sends_due_events_and_deletes_old_ones(
    made: tuple[Webhook, str], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = lambda args, **_: webhook_send(*args)  # noqa: E731 - as a worker does
    monkeypatch.setattr(webhook_send, "apply_async", sent)
    monkeypatch.setattr(link_audit_events, "apply_async", lambda args, **_: None)
    for _ in range(2):
        ping_write(webhook=made[0])
    old, new = WebhookDelivery.objects.order_by("pk")
    long_ago = timezone.now() - KEPT - timedelta(seconds=1)
    WebhookDelivery.objects.filter(pk=old.pk).update(status="delivered", created_at=long_ago)

    dispatch()

    assert [each.headers["webhook-id"] for each in receiver.received] == [new.key]
    assert list(WebhookDelivery.objects.values_list("pk", "status")) == [(new.pk, "delivered")]


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_send_each_event_once(
    made: tuple[Webhook, str], receiver: Receiver
) -> None:
    for _ in range(5):
        ping_write(webhook=made[0])

    assert at_once([lambda: webhook_work(made[0].pk)] * 4) == []

    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert len(ids) == len(set(ids)) == 5


def test_old_deliveries_are_deleted_unless_waiting(made: tuple[Webhook, str]) -> None:
    for _ in range(2):
        ping_write(webhook=made[0])
    WebhookDelivery.objects.update(created_at=timezone.now() - KEPT - timedelta(seconds=1))
    first = WebhookDelivery.objects.first()
    assert first is not None
    WebhookDelivery.objects.filter(pk=first.pk).update(status="delivered")

    deliveries_expire()

    assert WebhookDelivery.objects.get().status == "waiting"


def test_webhook_of_a_former_admin_waits_until_an_admin_resumes_it(
    project: Project, admin: User, annotator: User, as_user: As, receiver: Receiver
) -> None:
    helper = annotator
    member_set(project=project, user=helper, role=Role.ADMIN)
    webhook, _ = webhook_create(project=project, url=receiver.url, events=list(Event), by=helper)
    ping_write(webhook=webhook)
    client, log = as_user(admin), reverse("webhook", args=["bot", webhook.pk])
    assert b"may know its secret" not in client.get(log).content

    client.post(reverse("member-change", args=["bot", helper.pk]), {"role": "annotator"})

    assert webhook_work(webhook.pk) == 0
    assert b"may know its secret" in client.get(log).content
    client.post(f"{log}resume/")
    assert webhook_work(webhook.pk) == 1, "what had not been sent is not lost"
    assert b"may know its secret" in client.get(log).content


# -- the pages


def test_pages_create_test_resend_pause_and_delete(
    project: Project, admin: User, as_user: As, receiver: Receiver
) -> None:
    client = as_user(admin)
    page = reverse("webhooks", args=["bot"])

    made = client.post(page, {"url": receiver.url, "events": ["run.finished"]})
    webhook = Webhook.objects.get()
    log = reverse("webhook", args=["bot", webhook.pk])
    secret = made.content.decode().split("<code>")[1].split("</code>")[0]
    assert secret.startswith("whsec_")
    assert "no-store" in made["Cache-Control"]
    assert secret not in client.get(page).content.decode()

    shown = client.post(f"{log}test/", follow=True).content.decode()
    assert "Waiting" in shown and 'hx-trigger="every 2s"' in shown
    poll = {"HX-Request": "true", "HX-Trigger": "log"}
    assert client.get(log, headers=poll).status_code == 200
    webhook_work(webhook.pk)
    assert client.get(log, headers=poll).status_code == 286
    delivery = WebhookDelivery.objects.get()
    client.post(f"{log}deliveries/{delivery.pk}/again/")
    webhook_work(webhook.pk)
    assert len(receiver.received) == 2
    assert b"Delivered" in client.get(f"{log}?state=delivered").content
    assert b"No deliveries in this state" in client.get(f"{log}?state=failed").content
    assert client.get(f"{log}?state=body").status_code == 400

    client.post(f"{log}pause/")
    assert client.post(f"{log}test/").status_code == 400
    client.post(f"{log}resume/")
    client.post(f"{log}remove/")
    assert not Webhook.objects.exists()
    actions = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == [
        f"webhook.{action}" for action in ("create", "pause", "resume", "remove")
    ]


def test_pages_are_for_admins_of_the_project(
    made: tuple[Webhook, str], annotator: User, outsider: User, as_user: As
) -> None:
    ping_write(webhook=made[0])
    log = reverse("webhook", args=["bot", made[0].pk])
    actions = ["test/", "pause/", "resume/", "remove/"]
    actions.append(f"deliveries/{WebhookDelivery.objects.get().pk}/again/")
    for action in actions:
        assert as_user(annotator).post(log + action).status_code == 403
        assert as_user(outsider).post(log + action).status_code == 404
        assert as_user(outsider).post((log + action).replace("bot", "other")).status_code == 404
    assert as_user(annotator).get(log).status_code == 403
    assert as_user(outsider).get(log.replace("bot", "other")).status_code == 404
    assert Webhook.objects.filter(active=True).exists()


@pytest.mark.parametrize(
    "fields",
    [{"url": "", "events": "vote.cast"}, {"events": "nothing"}, {"events": ""}, {"secret": "mine"}],
)
def test_invalid_forms_are_refused(
    fields: dict[str, str], project: Project, admin: User, as_user: As, receiver: Receiver
) -> None:
    body = {"url": receiver.url, "events": "vote.cast"} | fields
    answer = as_user(admin).post(reverse("webhooks", args=["bot"]), body)

    assert answer.status_code == 400
    assert not Webhook.objects.exists()


def test_list_has_pages_and_its_queries_do_not_grow(
    project: Project,
    admin: User,
    as_user: As,
    receiver: Receiver,
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(30):
        url = f"{receiver.url}/{number}."
        webhook_create(project=project, url=url, events=[Event.RUN_FINISHED], by=admin)
    client, page = as_user(admin), reverse("webhooks", args=["bot"])

    with django_assert_max_num_queries(8):
        first = client.get(page).content.decode()
    second = client.get(f"{page}?page=2").content.decode()
    assert "/29." in first and "/5." in first and "/4." not in first
    assert "/4." in second and "/0." in second and "/5." not in second
    assert client.get(f"{page}?state=x").status_code == 400


def test_log_queries_do_not_grow(
    made: tuple[Webhook, str], admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    for _ in range(12):
        ping_write(webhook=made[0])
    client = as_user(admin)

    with django_assert_max_num_queries(9):
        client.get(reverse("webhook", args=["bot", made[0].pk]))
