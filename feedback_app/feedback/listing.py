"""The list of judged answers: which filters and orders exist, and what they select."""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest

from feedback_app.feedback.forms import query_choice, query_strict
from feedback_app.feedback.models import Completion, Project, Vote

LABELS = ("", "up", "down", "tie")
SPLITS = ("", "train", "heldout")
SOURCES = ("", "annotate", "demo", "import", "api")
SORTS = {
    "newest": ("-example__updated_at", "-pk"),
    "oldest": ("example__updated_at", "pk"),
    "votes": ("-vote_count", "-pk"),
    "weight": ("example__weight", "-pk"),
    "version": ("version", "-pk"),
}
PARAMETERS = ("label", "split", "source", "version", "sort", "page")


@dataclass(frozen=True)
class ExampleFilter:
    """The list's state, as it stands in the URL. Empty: no restriction."""

    label: str
    split: str
    source: str
    version: str
    sort: str

    @classmethod
    def of(cls, request: HttpRequest, *, versions: list[str]) -> "ExampleFilter":
        """Raises BadRequest for anything that is not on offer."""
        query_strict(request, PARAMETERS)
        return cls(
            label=query_choice(request, "label", LABELS),
            split=query_choice(request, "split", SPLITS),
            source=query_choice(request, "source", SOURCES),
            version=query_choice(request, "version", ("", *versions)),
            sort=query_choice(request, "sort", tuple(SORTS)),
        )

    def query(self, **changes: str) -> str:
        """The state as a query string; defaults are left out."""
        state = {
            "label": self.label,
            "split": self.split,
            "source": self.source,
            "version": self.version,
            "sort": "" if self.sort == "newest" else self.sort,
        } | changes
        return urlencode({name: value for name, value in state.items() if value})

    @property
    def narrowed(self) -> bool:
        return bool(self.label or self.split or self.source or self.version)

    def select(self, project: Project) -> QuerySet[Completion]:
        """Judged answers with their prompt and example, in order."""
        wanted = Q(vote_count__gt=0)
        if self.label == "tie":
            wanted &= Q(example=None)
        elif self.label:
            wanted &= Q(example__desirable=self.label == "up")
        if self.split:
            wanted &= Q(prompt__split=self.split)
        if self.source:
            wanted &= Q(source=self.source)
        if self.version:
            wanted &= Q(version=self.version)
        return (
            project.completions.filter(wanted)
            .select_related("prompt", "example")
            .prefetch_related(Prefetch("votes", Vote.objects.with_person()))
            .defer("prompt_token_ids", "token_ids")
            .order_by(*SORTS[self.sort])
        )


def versions_judged(project: Project) -> list[str]:
    """The versions whose answers have votes."""
    judged = project.completions.filter(vote_count__gt=0).order_by("version")
    return list(judged.values_list("version", flat=True).distinct())
