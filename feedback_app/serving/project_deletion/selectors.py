"""What the deletion of a project would remove, why it is refused, and how far it is."""

from dataclasses import dataclass

from django.db.models import QuerySet

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.db.bounded_count import counted
from feedback_app.feedback.models import Project, ProjectDeletion, Sampling
from feedback_app.serving.models import ChangeReport
from feedback_app.serving.project_deletion.parts import PARTS
from feedback_app.training.models import Erasure, InfluenceReport, Snapshot, VersionPush

#: What the pages call the rows of a model: one, and several.
NOUNS = {
    "feedback.Prompt": ("prompt", "prompts"),
    "feedback.Completion": ("answer", "answers"),
    "feedback.Vote": ("vote", "votes"),
    "feedback.Example": ("example", "examples"),
    "feedback.GoldItem": ("gold item", "gold items"),
    "training.Snapshot": ("snapshot", "snapshots"),
    "training.Run": ("run", "runs"),
    "training.Adapter": ("version", "versions"),
    "serving.Release": ("release", "releases"),
    "serving.Conversation": ("conversation", "conversations"),
    "serving.Comparison": ("comparison", "comparisons"),
    "serving.ShareLink": ("share link", "share links"),
    "feedback.ImportJob": ("import", "imports"),
    "feedback.Webhook": ("webhook", "webhooks"),
    "accounts.ApiToken": ("API token", "API tokens"),
    "accounts.Membership": ("membership", "memberships"),
}


@dataclass(frozen=True)
class Line:
    """The number of a project's rows of a kind, bounded by `bounded_count.COUNTED`."""

    label: str
    count: int


def rows_counted(project: Project) -> list[Line]:
    """Return what belongs to a project, by kind, in the order of NOUNS."""
    rows = {
        "feedback.Prompt": project.prompts.all(),
        "feedback.Completion": project.completions.all(),
        "feedback.Vote": project.votes.all(),
        "feedback.Example": project.examples.all(),
        "feedback.GoldItem": project.gold_items.all(),
        "training.Snapshot": project.snapshots.all(),
        "training.Run": project.runs.all(),
        "training.Adapter": project.adapters.filter(deleted_at=None),
        "serving.Release": project.releases.all(),
        "serving.Conversation": project.conversations.all(),
        "serving.Comparison": project.comparisons.all(),
        "serving.ShareLink": project.share_links.all(),
        "feedback.ImportJob": project.import_jobs.all(),
        "feedback.Webhook": project.webhooks.all(),
        "accounts.ApiToken": project.tokens.all(),
        "accounts.Membership": project.memberships.all(),
    }
    return [line_of(label, counted(found)) for label, found in rows.items()]


def line_of(label: str, count: int) -> Line:
    return Line(NOUNS[label][count != 1], count)


def rows_deleted(deletion: ProjectDeletion) -> list[Line]:
    """Return what a deletion has removed so far, in the order of NOUNS."""
    return [
        line_of(label, deletion.counts[label])
        for label in NOUNS
        if label in deletion.counts and label != "accounts.Membership"
    ]


def deletion_share(deletion: ProjectDeletion) -> int:
    """Return how many percent of the parts are deleted."""
    return 100 if deletion.finished_at else round(100 * deletion.part / len(PARTS))


def deletion_objections(project: Project) -> list[str]:
    """Return why a project cannot be deleted now, and what to do about each."""
    objections = []
    if project.archived_at is None:
        objections.append("The project is in use: archive it first.")
    run = project.runs.active().first()
    if run is not None:
        objections.append(f"{run} is in progress: cancel it, or wait until it has ended.")
    if project.snapshots.filter(Snapshot.working()).exists():
        objections.append("A snapshot is being taken: wait until that is done.")
    if project.import_jobs.filter(status__in=["queued", "running"]).exists():
        objections.append("An import is running: stop it, or wait until it has ended.")
    if project.samplings.filter(status__in=Sampling.ACTIVE).exists():
        objections.append("A sampling is running: wait until it has ended.")
    if ChangeReport.objects.filter(ChangeReport.working(), adapter__project=project).exists():
        objections.append("A change report is being written: wait until it is done.")
    if InfluenceReport.objects.filter(InfluenceReport.working(), adapter__project=project).exists():
        objections.append("The influence of votes is being measured: cancel it, or wait.")
    if VersionPush.objects.filter(VersionPush.working(), adapter__project=project).exists():
        objections.append("A version is being pushed: wait until that is done.")
    if Erasure.objects.filter(project=project, finished_at=None).exists():
        objections.append("A person is being erased from it: wait until that is done.")
    return objections


def deletion_for(user: User, pk: int) -> ProjectDeletion | None:
    """Return a deletion that this person requested; superusers see all."""
    rows = ProjectDeletion.objects.select_related("project", "by").filter(pk=pk)
    return (rows if user.is_superuser else rows.filter(by=user)).first()


def trail_of(deletion: ProjectDeletion) -> QuerySet[AuditEvent]:
    """Return the project's audit trail, newest first."""
    rows = AuditEvent.objects.filter(project=deletion.project_id)
    return rows.select_related("actor").order_by("-created_at", "-pk")
