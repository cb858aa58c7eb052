"""Export of all data about a person, as one streamed JSON document."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet

from feedback_app.accounts.models import (
    ApiPerson,
    ApiToken,
    AuditEvent,
    Invitation,
    Membership,
    User,
)
from feedback_app.feedback.models import (
    Adjudication,
    Correction,
    FollowUp,
    GoldAnswer,
    GoldItem,
    GuidelinesVersion,
    ImportJob,
    Lease,
    Notification,
    NotificationChoice,
    Pause,
    Probe,
    ProjectDeletion,
    Skip,
    Vote,
    VoteEvent,
    Webhook,
)
from feedback_app.serving.models import (
    ChangeReport,
    Comparison,
    Conversation,
    Release,
    ShareLink,
    ShareVisitor,
    TrafficSplit,
    Turn,
)
from feedback_app.training.influence.selectors import influence_of_person
from feedback_app.training.models import (
    Erasure,
    GateRules,
    InfluenceReport,
    Judge,
    PairVote,
    Run,
    Sweep,
    VersionPush,
)

CHUNK = 500


@dataclass(frozen=True)
class Part:
    """One list of the document: its rows, the field of the person, and the exported fields."""

    name: str
    rows: QuerySet[Any]
    person_field: str
    fields: tuple[str, ...]


VOTE = ("verdict", "source", "created_at")
PARTS = (
    Part("memberships", Membership.objects.all(), "user", ("project__slug", "role", "created_at")),
    Part(
        "votes",
        Vote.objects.all(),
        "user",
        (
            "project__slug",
            "completion",
            "completion__prompt__messages",
            "completion__text",
            *VOTE,
            "updated_at",
            "reasons",
            "comment",
        ),
    ),
    Part(
        "corrections",
        Correction.objects.all(),
        "user",
        ("original__project__slug", "original", "original__text", "completion__text", "created_at"),
    ),
    Part("vote_events", VoteEvent.objects.all(), "user", ("completion", *VOTE)),
    Part(
        "follow_ups",
        FollowUp.objects.all(),
        "user",
        ("project__slug", "completion", "kind", "created_at"),
    ),
    Part(
        "notifications",
        Notification.objects.all(),
        "user",
        ("project__slug", "kind", "text", "created_at"),
    ),
    Part(
        "notification_choices",
        NotificationChoice.objects.all(),
        "user",
        ("project__slug", "listed", "mailed"),
    ),
    Part(
        "pauses",
        Pause.objects.all(),
        "user",
        ("project__slug", "right", "of", "votes_set_aside", "created_at", "lifted_at"),
    ),
    Part("skips", Skip.objects.all(), "user", ("completion", "flag", "reason", "created_at")),
    Part(
        "conversations",
        Turn.objects.all(),
        "conversation__user",
        (
            "conversation__project__slug",
            "conversation",
            "conversation__title",
            "conversation__system_prompt",
            "position",
            "user_message",
            "completion__text",
            "completion__version",
            "created_at",
        ),
    ),
    Part(
        "comparisons",
        Comparison.objects.all(),
        "user",
        ("project__slug", "question", "left__text", "right__text", "choice", "created_at"),
    ),
    Part("imports", ImportJob.objects.all(), "by", ("project__slug", "name", "rows", "created_at")),
    Part("runs", Run.objects.all(), "requested_by", ("project__slug", "number", "created_at")),
    Part("sweeps", Sweep.objects.all(), "requested_by", ("project__slug", "number", "created_at")),
    Part(
        "releases",
        Release.objects.all(),
        "released_by",
        ("project__slug", "adapter__name", "reason", "since"),
    ),
    Part(
        "tokens",
        ApiToken.objects.all(),
        "created_by",
        ("project__slug", "name", "scopes", "created_at", "expires_at", "revoked_at"),
    ),
    Part(
        "invitations",
        Invitation.objects.all(),
        "created_by",
        ("project__slug", "role", "email", "created_at"),
    ),
    Part(
        "gold_items",
        GoldItem.objects.all(),
        "by",
        ("project__slug", "completion", "verdict", "why", "created_at"),
    ),
    Part(
        "resolutions",
        Adjudication.objects.all(),
        "by",
        ("project__slug", "completion", "verdict", "why", "resolved_at"),
    ),
    Part(
        "guidelines",
        GuidelinesVersion.objects.all(),
        "by",
        ("project__slug", "number", "text", "created_at"),
    ),
    Part(
        "webhooks",
        Webhook.objects.all(),
        "created_by",
        ("project__slug", "url", "events", "created_at"),
    ),
    Part(
        "traffic_splits",
        TrafficSplit.objects.all(),
        "started_by",
        ("project__slug", "candidate__name", "percent", "status", "started_at"),
    ),
    Part(
        "share_links",
        ShareLink.objects.all(),
        "created_by",
        ("project__slug", "label", "choice", "created_at", "expires_at", "revoked_at"),
    ),
    Part(
        "change_reports",
        ChangeReport.objects.all(),
        "requested_by",
        ("adapter__name", "previous", "status", "created_at"),
    ),
    Part(
        "influence_reports",
        InfluenceReport.objects.all(),
        "requested_by",
        ("adapter__name", "status", "created_at"),
    ),
    Part(
        "version_pushes",
        VersionPush.objects.all(),
        "requested_by",
        ("adapter__name", "destination", "status", "created_at", "finished_at"),
    ),
    Part(
        "gate_rules",
        GateRules.objects.all(),
        "saved_by",
        ("project__slug", "number", "rules", "created_at"),
    ),
    Part(
        "probes",
        Probe.objects.all(),
        "created_by",
        ("project__slug", "messages", "kind", "pattern", "note", "created_at", "retired_at"),
    ),
    Part(
        "judges",
        Judge.objects.all(),
        "saved_by",
        ("project__slug", "url", "model", "updated_at"),
    ),
    Part(
        "pair_votes",
        PairVote.objects.all(),
        "user",
        # not `choice`: it would tell which answer was whose, while others still judge the pair
        ("pair__batch__project__slug", "pair__messages", "side", "created_at", "updated_at"),
    ),
    Part(
        "project_deletions",
        ProjectDeletion.objects.all(),
        "by",
        ("project__slug", "created_at", "finished_at"),
    ),
    Part("erasures", Erasure.objects.all(), "by", ("project__slug", "created_at")),
    Part(
        "audit",
        AuditEvent.objects.all(),
        "actor",
        ("project__slug", "action", "target", "reason", "address", "created_at"),
    ),
)
#: Models that refer to a person and are in no part, with the reason.
LEFT_OUT = {
    Conversation: "its turns are in the document",
    GoldAnswer: "would tell which items are gold; the verdict itself is in the votes",
    Lease: "items on their screen, or ahead in their browser, for some minutes",
    ShareVisitor: "a browser without an account, which cannot request an export",
    ApiPerson: "a person without an account, who cannot request an export",
}


def person_json(user: User) -> Iterator[str]:
    """Yield the document in pieces; memory use does not depend on its size."""
    account = {
        "email": user.email,
        "name": user.name,
        "created_at": user.created_at,
        "last_login": user.last_login,
    }
    yield '{"account": ' + dumps(account)
    for part in PARTS:
        yield f',\n"{part.name}": ['
        rows = part.rows.filter(**{part.person_field: user}).order_by("pk").values(*part.fields)
        for number, row in enumerate(rows.iterator(chunk_size=CHUNK)):
            yield (",\n" if number else "\n") + dumps(row)
        yield "]"
    yield ',\n"influence": ' + dumps(influence_of_person(user))
    yield "}\n"


def dumps(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
