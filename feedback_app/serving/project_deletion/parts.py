"""What belongs to a project, in the order in which it is deleted.

A part comes before what its rows refer to. Rows that have few others below them take those along by
Django's cascade: an answer its votes, a conversation its turns. Others have parts of their own, so
that no batch grows with the project.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet

from feedback_app.accounts.models import ApiReceipt, ApiToken, Invitation, Membership, User
from feedback_app.feedback.models import (
    Completion,
    Figures,
    FollowUp,
    GoldAnswer,
    GuidelinesVersion,
    ImportJob,
    ImportRefusal,
    Notification,
    NotificationChoice,
    Pause,
    Probe,
    Project,
    Prompt,
    Sampling,
    Webhook,
    WebhookDelivery,
)
from feedback_app.serving.models import (
    Assignment,
    ChangeReport,
    Comparison,
    Conversation,
    FixedAnswer,
    FixedPrompt,
    LiveVersionClaim,
    Release,
    ShareLink,
    TrafficSplit,
)
from feedback_app.training.models import (
    Adapter,
    BlindPair,
    Erasure,
    GateRules,
    InfluenceReport,
    Judge,
    PairBatch,
    Run,
    RunMetric,
    RunNote,
    Schedule,
    Snapshot,
    SnapshotItem,
    Sweep,
    VersionPush,
)

#: Rows that one transaction deletes, without those below them.
BATCH = 500
#: The same where many rows may be below each.
SMALL_BATCH = 100


@dataclass(frozen=True)
class Part:
    """The rows of a model that belong to a project; `path` leads from a row to the project."""

    model: type[Model]
    path: str = "project"
    batch: int = BATCH

    def rows(self, project: Project) -> QuerySet[Any]:
        return self.model._default_manager.filter(**{self.path: project})


PARTS = (
    # what reaches people and other servers goes first
    Part(WebhookDelivery, "webhook__project"),
    Part(Webhook),
    Part(Notification),
    Part(NotificationChoice),
    Part(Erasure),
    Part(Schedule),
    Part(Figures),
    # serving
    Part(Assignment, "split__project", SMALL_BATCH),
    Part(TrafficSplit),
    Part(Comparison),
    Part(Conversation, batch=SMALL_BATCH),
    Part(FixedAnswer, "fixed_prompt__project"),
    Part(FixedPrompt),
    Part(ChangeReport, "adapter__project"),
    Part(LiveVersionClaim),
    Part(Release),
    # training
    Part(BlindPair, "batch__project", SMALL_BATCH),
    Part(PairBatch),
    Part(InfluenceReport, "adapter__project"),
    Part(VersionPush, "adapter__project"),
    Part(Adapter),
    Part(RunMetric, "run__project"),
    Part(RunNote, "run__project"),
    Part(Run),
    Part(Sweep),
    Part(SnapshotItem, "snapshot__project"),
    Part(Snapshot),
    Part(GateRules),
    Part(Judge),
    # feedback
    Part(GoldAnswer),
    Part(FollowUp),
    Part(Completion, batch=SMALL_BATCH),
    Part(Pause),
    Part(Probe),
    Part(Prompt),
    Part(Sampling),
    Part(ImportRefusal, "job__project"),
    Part(ImportJob),
    Part(GuidelinesVersion),
    # accounts, and those that exist for this project only
    Part(ApiReceipt, "token__project"),
    Part(User, "token__project", SMALL_BATCH),
    Part(User, "api_person__project", SMALL_BATCH),
    Part(User, "share_visitor__link__project", SMALL_BATCH),
    Part(ApiToken),
    Part(ShareLink),
    Part(Invitation),
    Part(Membership),
)
