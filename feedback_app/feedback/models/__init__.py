"""The models of the feedback app, one module per subject. Import them from here."""

from feedback_app.feedback.models.choices import (
    BASE_VERSION,
    EDITED_VERSION,
    IMPORTED_VERSION,
    Source,
    Split,
    Verdict,
)
from feedback_app.feedback.models.completions import Completion, CompletionQuerySet
from feedback_app.feedback.models.examples import Example, ExampleQuerySet
from feedback_app.feedback.models.figures import Figures
from feedback_app.feedback.models.gold import GoldAnswer, GoldItem, Pause
from feedback_app.feedback.models.guidelines import GuidelinesVersion
from feedback_app.feedback.models.imports import ImportJob, ImportRefusal
from feedback_app.feedback.models.notifications import (
    Notification,
    NotificationChoice,
    NotificationKind,
)
from feedback_app.feedback.models.projects import (
    Project,
    ProjectDeletion,
    QueueOrder,
    default_reasons,
)
from feedback_app.feedback.models.prompts import Probe, Prompt
from feedback_app.feedback.models.queue import Lease, Skip
from feedback_app.feedback.models.sampling import Sampling
from feedback_app.feedback.models.votes import (
    Adjudication,
    Correction,
    FollowUp,
    Vote,
    VoteEvent,
    VoteQuerySet,
)
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery

__all__ = [
    "BASE_VERSION",
    "EDITED_VERSION",
    "IMPORTED_VERSION",
    "Adjudication",
    "Completion",
    "CompletionQuerySet",
    "Correction",
    "Event",
    "Example",
    "ExampleQuerySet",
    "Figures",
    "FollowUp",
    "GoldAnswer",
    "GoldItem",
    "GuidelinesVersion",
    "ImportJob",
    "ImportRefusal",
    "Lease",
    "Notification",
    "NotificationChoice",
    "NotificationKind",
    "Pause",
    "Probe",
    "Project",
    "ProjectDeletion",
    "Prompt",
    "QueueOrder",
    "Sampling",
    "Skip",
    "Source",
    "Split",
    "Verdict",
    "Vote",
    "VoteEvent",
    "VoteQuerySet",
    "Webhook",
    "WebhookDelivery",
    "default_reasons",
]
