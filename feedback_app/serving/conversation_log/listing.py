"""The log's filters and rows.

The cost does not depend on the number of conversations: person and days follow an index, and all
other filters look through the newest WINDOW conversations of those.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Exists, F, OuterRef, Prefetch, Q, QuerySet
from django.http import HttpRequest

from feedback_app.accounts.models import ApiPerson, ApiToken
from feedback_app.feedback.models import Completion, Project, Verdict, Vote
from feedback_app.serving.models import Conversation, ShareVisitor, Turn
from feedback_app.web.days import day_of, midnight
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_choice, query_strict

#: The newest conversations that filters without an index look through.
WINDOW = 2_000
#: Characters of a search.
TEXT_LIMIT = 200
PARAMETERS = ("version", "verdict", "source", "person", "text", "first", "last", "page")
VERDICTS = {
    "": "Any verdict",
    "up": "With a thumb up",
    "down": "With a thumb down",
    "none": "Without a thumb",
}
SOURCES = {"": "Every source", "demo": "Demo", "link": "Share link", "gateway": "Gateway"}

TURNS = Turn.objects.filter(conversation=OuterRef("pk"))
VOTES = Vote.objects.filter(completion__turns__conversation=OuterRef("pk"))


@dataclass(frozen=True)
class LogFilter:
    """The list's state, as in the URL. Empty: no restriction. Days are UTC, both included."""

    version: str
    verdict: str
    source: str
    person: str
    text: str
    first: str
    last: str

    @classmethod
    def of(cls, request: HttpRequest, *, also: tuple[str, ...] = ()) -> "LogFilter":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, (*PARAMETERS, *also))
        person = request.GET.get("person", "")
        if person and not (person.isdecimal() and len(person) < 19):
            raise UserError("person must be a number.")
        text = request.GET.get("text", "").strip()
        if len(text) > TEXT_LIMIT or "\x00" in text:
            raise UserError(f"text has at most {TEXT_LIMIT} characters, and no NUL.")
        version = request.GET.get("version", "")
        if len(version) > 80 or "\x00" in version:
            raise UserError("version must be a version's name.")
        return cls(
            version=version,
            verdict=query_choice(request, "verdict", tuple(VERDICTS)),
            source=query_choice(request, "source", tuple(SOURCES)),
            person=person,
            text=text,
            first=day_of(request, "first"),
            last=day_of(request, "last"),
        )

    def query(self, **changes: str) -> str:
        """Return the state as a query string, without what is empty."""
        state = {name: getattr(self, name) for name in PARAMETERS if name != "page"} | changes
        return urlencode({name: value for name, value in state.items() if value})

    @property
    def windowed(self) -> bool:
        """Whether only the newest WINDOW conversations are looked through."""
        return bool(self.version or self.verdict or self.source or self.text)

    def select(self, project: Project) -> QuerySet[Conversation]:
        """Return the matching conversations, the one with the newest message first."""
        rows = self._indexed(Conversation.objects.kept().filter(project=project))
        if self.windowed:
            newest = rows.order_by("-updated_at").values_list("updated_at", flat=True)
            oldest = newest[WINDOW - 1 : WINDOW].first()
            if oldest is not None:
                rows = rows.filter(updated_at__gte=oldest)
        for condition in self._conditions():
            rows = rows.filter(condition)
        # an empty one was only opened
        return rows.filter(Exists(TURNS)).order_by("-updated_at", "-pk")

    def _indexed(self, rows: QuerySet[Conversation]) -> QuerySet[Conversation]:
        if self.person:
            rows = rows.filter(user=int(self.person))
        if self.first:
            rows = rows.filter(updated_at__gte=midnight(self.first))
        if self.last:
            rows = rows.filter(updated_at__lt=midnight(self.last) + dt.timedelta(days=1))
        return rows

    def _conditions(self) -> Iterable[Q]:
        if self.version:
            yield Q(Exists(TURNS.filter(completion__version=self.version)))
        if self.verdict == "none":
            yield ~Q(Exists(VOTES))
        elif self.verdict:
            yield Q(Exists(VOTES.filter(verdict=self.verdict)))
        origin = origin_of("user")
        if self.source == "link":
            yield origin["by_visitor"]
        elif self.source == "gateway":
            yield origin["by_product"]
        elif self.source == "demo":
            yield ~(origin["by_visitor"] | origin["by_product"])
        if self.text:
            said = Q(user_message__icontains=self.text) | Q(completion__text__icontains=self.text)
            yield Q(title__icontains=self.text) | Q(Exists(TURNS.filter(said)))


# -- rows


def origin_of(user: str) -> dict[str, Q]:
    """Return annotations with where the person wrote; `user` is the field that names them."""
    of = OuterRef(user)
    people, tokens = ApiPerson.objects.filter(user=of), ApiToken.objects.filter(user=of)
    return {
        "by_visitor": Q(Exists(ShareVisitor.objects.filter(user=of))),
        "by_product": Q(Exists(people)) | Q(Exists(tokens)),
    }


def with_people(rows: QuerySet[Conversation]) -> QuerySet[Conversation]:
    """Add each conversation's person, origin and, for a visitor, the link's name."""
    link = F("user__share_visitor__link__label")
    return rows.select_related("user").annotate(link=link, **origin_of("user"))


def with_figures(rows: QuerySet[Conversation]) -> QuerySet[Conversation]:
    """Add what a list shows of the turns: versions and verdicts, without their texts."""
    votes = Prefetch("votes", Vote.objects.only("completion_id", "verdict"))
    answers = Completion.objects.only("version").prefetch_related(votes)
    turns = Turn.objects.only("conversation_id", "position", "completion_id").order_by("pk")
    return with_people(rows).prefetch_related(
        Prefetch("turns", turns.prefetch_related(Prefetch("completion", answers)))
    )


@dataclass(frozen=True)
class LogRow:
    """One line of the list."""

    conversation: Conversation
    person: str
    source: str
    turns: int
    versions: list[str]
    ups: int
    downs: int


def source_key(row: Any) -> str:
    """Return the key in SOURCES of a row that has the annotations of `origin_of`."""
    if row.by_visitor:
        return "link"
    return "gateway" if row.by_product else "demo"


def person_of(row: Any) -> str:
    """Return who wrote it; a visitor has a number, as all of a link's have one name."""
    return f"Visitor {row.user_id}" if row.by_visitor else str(row.user)


def source_of(row: Any) -> str:
    """Return where it was written."""
    label = SOURCES[source_key(row)]
    return f"{label} “{row.link}”" if row.by_visitor else label


def log_rows(conversations: Iterable[Conversation]) -> list[LogRow]:
    """Return the lines of conversations that have their figures."""
    return [log_row(conversation) for conversation in conversations]


def log_row(conversation: Conversation) -> LogRow:
    turns = list(conversation.turns.all())
    answers = [turn.completion for turn in turns if turn.completion is not None]
    verdicts = [vote.verdict for answer in answers for vote in answer.votes.all()]
    return LogRow(
        conversation=conversation,
        person=person_of(conversation),
        source=source_of(conversation),
        turns=len(turns),
        versions=list(dict.fromkeys(answer.version for answer in answers)),
        ups=verdicts.count(Verdict.UP),
        downs=verdicts.count(Verdict.DOWN),
    )
