"""Completions that need an adjudication, and those that have one."""

from dataclasses import dataclass

from django.db.models import Prefetch, Q, QuerySet

from feedback_app.db.bounded_count import LISTED, counted
from feedback_app.feedback.models import Adjudication, Completion, CompletionQuerySet, Project, Vote


@dataclass(frozen=True)
class Waiting:
    """Numbers of completions that wait for an adjudication, by reason; each is bounded by
    `bounded_count.LISTED`."""

    contested: int
    asked: int

    @property
    def total(self) -> int:
        return self.contested + self.asked

    @property
    def most(self) -> int:
        """The bound of each number."""
        return LISTED


def contested(project: Project) -> CompletionQuerySet:
    """Return completions with ups and downs, all their votes and no final verdict; oldest first."""
    full = Q(vote_count__gte=project.overlap) | Q(queued=False)
    return _shown(
        Completion.objects.filter(full, project=project, contested=True, decided="")
        # requested ones are listed by `asked`
        .exclude(pk__in=Adjudication.objects.filter(project=project, open=True).values("pk"))
        .order_by("pk")
    )


def asked(project: Project) -> CompletionQuerySet:
    """Return completions with an open request, oldest request first."""
    rows = Completion.objects.filter(adjudication__project=project, adjudication__open=True)
    return _shown(rows.order_by("adjudication__asked_at", "pk"))


def resolved(project: Project) -> CompletionQuerySet:
    """Return completions with a final verdict, newest first."""
    rows = Completion.objects.filter(adjudication__project=project, adjudication__verdict__gt="")
    decided = rows.filter(adjudication__open=False)
    return _shown(decided.order_by("-adjudication__resolved_at", "-pk"))


def _shown(rows: CompletionQuerySet) -> CompletionQuerySet:
    return (
        rows.select_related("prompt", "adjudication__asked_by", "adjudication__by", "example")
        .defer("token_ids", "prompt_token_ids")
        .prefetch_related(Prefetch("votes", Vote.objects.with_person()))
    )


def asked_rows(project: Project) -> QuerySet[Adjudication]:
    """Return the open requests, for counts: their index has all of them."""
    return project.adjudications.filter(open=True)


def waiting(project: Project) -> Waiting:
    return Waiting(
        counted(contested(project), most=LISTED), counted(asked_rows(project), most=LISTED)
    )
