"""Checks of people and of the secrets that they made."""

import datetime as dt
from collections.abc import Iterator
from itertools import islice

from allauth.mfa.models import Authenticator
from cryptography.fernet import InvalidToken
from django.db.models import Exists, OuterRef
from django.utils import timezone

from feedback_app.accounts.audit_chain import chain_faults
from feedback_app.accounts.models import ApiToken, AuditEvent, Membership, Role
from feedback_app.accounts.sealing import unseal
from feedback_app.feedback.models import Project, Webhook
from feedback_app.operations.doctor.findings import Problem, listed
from feedback_app.serving.models import ShareLink
from feedback_app.training.models import Judge

#: Sealed values that are opened: the key fits all of them or none.
SAMPLE = 100
#: A worker adds events to the chain within seconds.
UNLINKED_LATE = dt.timedelta(minutes=10)


def owners() -> Iterator[Problem]:
    owner = Membership.objects.filter(project=OuterRef("pk"), role=Role.OWNER, user__is_active=True)
    for slug in (
        Project.objects.filter(deletion=None)
        .exclude(Exists(owner))
        .order_by("pk")
        .values_list("slug", flat=True)
    ):
        yield Problem(
            f"The project {slug} has no active owner: nobody can change its members.",
            "Reactivate one, or give a member the role with `manage.py shell`.",
        )


def sealed_values() -> Iterator[Problem]:
    sealed = list(Webhook.objects.order_by("-pk").values_list("secret", flat=True)[:SAMPLE])
    judges = Judge.objects.exclude(api_key="").order_by("-pk")
    sealed += judges.values_list("api_key", flat=True)[:SAMPLE]
    factors = Authenticator.objects.filter(type=Authenticator.Type.TOTP).order_by("-pk")
    sealed += [data["secret"] for data in factors.values_list("data", flat=True)[:SAMPLE]]
    closed = 0
    for value in sealed:
        try:
            unseal(value)
        except InvalidToken:
            closed += 1
    if closed:
        yield Problem(
            f"{closed} of {len(sealed)} stored secrets (webhooks, judge models, second factors) do "
            "not open with SECRET_KEY.",
            "Add the key that sealed them to SECRET_KEY_FALLBACKS. If it is lost: make new "
            "webhooks, save the keys of judges again, and run `manage.py forget_factors "
            "--unreadable`.",
        )


def tokens_of_inactive_people() -> Iterator[Problem]:
    tokens = ApiToken.objects.valid().filter(created_by__is_active=False).order_by("pk")
    if found := list(tokens):
        yield Problem(
            f"API tokens of deactivated people are valid: {listed(found)}.",
            "Revoke them on the project's page of API tokens.",
        )


def links_of_inactive_people() -> Iterator[Problem]:
    links = ShareLink.objects.filter(
        created_by__is_active=False, revoked_at=None, expires_at__gt=timezone.now()
    )
    if found := list(links.order_by("pk")):
        yield Problem(
            f"Share links of deactivated people are open: {listed(found)}.",
            "Revoke them on the project's page of share links.",
        )


def webhooks_of_former_admins() -> Iterator[Problem]:
    rows = Webhook.objects.filter(active=True, project__deletion=None).of_former_admins()
    if found := list(rows.order_by("pk")[:SAMPLE]):
        yield Problem(
            "Webhooks get events though who made them, and may know their secret, is no active "
            f"admin any more: {listed(found)}.",
            "Open each from the project's page of webhooks, and pause or replace it.",
        )


def audit_trail() -> Iterator[Problem]:
    if faults := list(islice(chain_faults(), SAMPLE)):
        texts = listed([f"event {fault.number} {fault.what}" for fault in faults])
        yield Problem(
            f"The audit trail was changed outside the application: {texts}.",
            "Compare it with a backup, and find out who can write to the database.",
        )
    late = timezone.now() - UNLINKED_LATE
    if waiting := AuditEvent.objects.filter(number=None, created_at__lt=late).count():
        yield Problem(
            f"{waiting} audit events are not in the chain of hashes yet.",
            "Start a worker for the queue `default`, and beat.",
        )
