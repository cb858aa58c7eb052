"""What lies before the resolver."""

from dataclasses import dataclass

from django.db.models import Prefetch, Q

from feedback_app.feedback.models import Completion, CompletionQuerySet, Project, Resolution, Vote


@dataclass(frozen=True)
class Waiting:
    """How many completions wait for a verdict of the resolver, by why."""

    contested: int
    asked: int

    @property
    def total(self) -> int:
        return self.contested + self.asked


def contested(project: Project) -> CompletionQuerySet:
    """People disagree and all who were to judge have; nobody has decided. Oldest first."""
    full = Q(vote_count__gte=project.overlap) | Q(queued=False)
    return _shown(
        Completion.objects.filter(full, project=project, contested=True, decided="")
        # then it is listed as asked for
        .exclude(pk__in=Resolution.objects.filter(project=project, open=True).values("pk"))
        .order_by("pk")
    )


def asked(project: Project) -> CompletionQuerySet:
    """Somebody asked for a look; the first to be asked comes first."""
    rows = Completion.objects.filter(resolution__project=project, resolution__open=True)
    return _shown(rows.order_by("resolution__asked_at", "pk"))


def resolved(project: Project) -> CompletionQuerySet:
    """What was decided, the latest first."""
    rows = Completion.objects.filter(resolution__project=project, resolution__verdict__gt="")
    return _shown(rows.filter(resolution__open=False).order_by("-resolution__resolved_at", "-pk"))


def _shown(rows: CompletionQuerySet) -> CompletionQuerySet:
    return (
        rows.select_related("prompt", "resolution__asked_by", "resolution__by", "example")
        .defer("token_ids", "prompt_token_ids")
        .prefetch_related(Prefetch("votes", Vote.objects.with_person()))
    )


def waiting(project: Project) -> Waiting:
    return Waiting(contested(project).count(), asked(project).count())
