"""The list of prompts: its filters and their query parameters.

The cost does not depend on the table's size: lists follow an index, and a search looks through
WINDOW prompts only.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest

from feedback_app.feedback.models import Completion, Project, Prompt, Source
from feedback_app.feedback.prompts.completions import storable
from feedback_app.web.forms import query_choice, query_strict

#: The newest prompts that a search looks through.
WINDOW = 2_000
TEXT_LIMIT = 200
SHOWN = ("active", "retired")
SOURCES = ("", *Source.values)


@dataclass(frozen=True)
class PromptFilter:
    """The list's state, as in the URL. Empty: no restriction."""

    show: str
    source: str
    topic: str
    text: str

    @classmethod
    def of(cls, request: HttpRequest) -> "PromptFilter":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, ("show", "source", "topic", "text", "page"))
        return cls(
            show=query_choice(request, "show", SHOWN),
            source=query_choice(request, "source", SOURCES),
            topic=storable(request.GET.get("topic", "")[:TEXT_LIMIT]),
            text=storable(request.GET.get("text", "")[:TEXT_LIMIT]).strip(),
        )

    def query(self) -> str:
        """Return the state as a query string, without defaults."""
        state = {
            "show": "" if self.show == SHOWN[0] else self.show,
            "source": self.source,
            "topic": self.topic,
            "text": self.text,
        }
        return urlencode({name: value for name, value in state.items() if value})

    @property
    def narrowed(self) -> bool:
        return bool(self.source or self.topic or self.text)

    def select(self, project: Project) -> QuerySet[Prompt]:
        """Return the matching prompts, newest first, each with `answered`."""
        retired = self.show == "retired"
        rows = project.prompts.filter(retired_at__isnull=not retired)
        order = ("-retired_at", "-pk") if retired else ("-pk",)
        if self.narrowed:
            rows = Prompt.objects.filter(pk__in=self._found(rows.order_by(*order)))
        answered = Exists(Completion.objects.filter(prompt=OuterRef("pk")))
        return rows.annotate(answered=answered).order_by(*order)

    def _found(self, rows: QuerySet[Prompt]) -> list[int]:
        """Return the ids of those of the first WINDOW rows that match.

        Read in Python: how a JSON column is compared depends on the database.
        """
        wanted = self.text.casefold()
        columns = rows.values_list("pk", "source", "topic", "messages")
        return [
            pk
            for pk, source, topic, messages in columns[:WINDOW]
            if self.source in ("", source)
            and self.topic in ("", topic)
            and any(wanted in message["content"].casefold() for message in messages)
        ]


def topics_of(project: Project) -> list[str]:
    """Return the topics of the newest WINDOW prompts, in order."""
    newest = project.prompts.active().order_by("-pk").values_list("topic", flat=True)[:WINDOW]
    return sorted({topic for topic in newest if topic})
