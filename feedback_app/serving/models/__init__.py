"""The models of the serving app, one module a subject; import them from here."""

from feedback_app.serving.models.comparisons import Comparison
from feedback_app.serving.models.conversations import Conversation, Turn
from feedback_app.serving.models.open_answers import OpenAnswer
from feedback_app.serving.models.releases import LiveVersionClaim, Release
from feedback_app.serving.models.share_links import ShareLink, ShareVisitor
from feedback_app.serving.models.traffic_splits import Assignment, AssignmentAnswer, TrafficSplit
from feedback_app.serving.models.version_diff import ChangeReport, FixedAnswer, FixedPrompt

__all__ = [
    "Assignment",
    "AssignmentAnswer",
    "ChangeReport",
    "Comparison",
    "Conversation",
    "FixedAnswer",
    "FixedPrompt",
    "LiveVersionClaim",
    "OpenAnswer",
    "Release",
    "ShareLink",
    "ShareVisitor",
    "TrafficSplit",
    "Turn",
]
