"""The models of the training app, one module a subject; import them from here."""

from feedback_app.training.models.adapters import Adapter
from feedback_app.training.models.erasures import Erasure
from feedback_app.training.models.gate import GateOutcome, GateRules, Judge
from feedback_app.training.models.influence import InfluenceReport
from feedback_app.training.models.pairs import BlindPair, PairBatch, PairVote
from feedback_app.training.models.pushes import VersionPush
from feedback_app.training.models.runs import Run, RunMetric, RunNote
from feedback_app.training.models.schedules import Schedule
from feedback_app.training.models.snapshots import Snapshot, SnapshotItem
from feedback_app.training.models.sweeps import Sweep

__all__ = [
    "Adapter",
    "BlindPair",
    "Erasure",
    "GateOutcome",
    "GateRules",
    "InfluenceReport",
    "Judge",
    "PairBatch",
    "PairVote",
    "Run",
    "RunMetric",
    "RunNote",
    "Schedule",
    "Snapshot",
    "SnapshotItem",
    "Sweep",
    "VersionPush",
]
