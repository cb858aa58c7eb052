"""Counting what the next snapshot contains. A worker reads the newest training examples."""

import datetime as dt
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from feedback_app.db import bounded_count
from feedback_app.feedback.models import Completion, Figures, Project, Split
from feedback_app.training.snapshots.content.duplicates import near_duplicates

NAME = "snapshot_content"
#: Training examples that are read, the newest; and of them those whose language is recognised.
MOST, LANGUAGES_READ = 20_000, 2_000
#: Answers of fewer characters may be of many languages.
LANGUAGE_FROM = 40
#: Characters of a text that are read.
LONGEST = 20_000
#: Groups of duplicates that are shown, and languages.
GROUPS, LANGUAGES = 5, 6
#: Upper ends of the histogram's bars, in characters.
LENGTHS = (100, 250, 500, 1_000, 2_500, 5_000)
FRESH = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class Text:
    """One training example as it is read."""

    completion: int
    question: str
    answer: str
    desirable: bool

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps([self.question, self.answer]).encode()).digest()


@dataclass(frozen=True)
class Bar:
    """One bar of the histogram: answers of `start` to `last` characters (None: and more)."""

    start: int
    last: int | None
    ups: int
    downs: int
    share: float  # of the highest bar

    @property
    def total(self) -> int:
        return self.ups + self.downs


@dataclass(frozen=True)
class Group:
    """Examples that say nearly the same: so many, and the first of them."""

    count: int
    first: Completion
    mixed: bool


@dataclass(frozen=True)
class Content:
    """What the page shows. `exact` and `near` count examples that repeat another, `mixed` groups of
    them with ups and downs."""

    read: int
    more: bool
    ups: int
    downs: int
    exact: int
    near: int
    mixed: int
    groups: list[Group]
    languages: list[tuple[str, float]]
    lengths: list[Bar]
    counted_at: dt.datetime | None


def content_read(project: Project) -> Content | None:
    """Return what was last counted, and have it counted again if it is old; None before that."""
    row, _ = Figures.objects.get_or_create(project=project, name=NAME)
    old = row.counted_at is not None and row.counted_at < timezone.now() - FRESH
    if old and row.status == Figures.Status.DONE and not project.archived_at:
        Figures.objects.filter(pk=row.pk, status=Figures.Status.DONE).update(
            status=Figures.Status.QUEUED
        )
    return None if row.value is None else content_of(project, row)


def content_of(project: Project, row: Figures) -> Content:
    value = row.value
    ids = [first for _, first, _ in value["groups"]]
    known = project.completions.select_related("prompt").only("text", "prompt__messages")
    firsts = known.in_bulk(ids)
    highest = max((ups + downs for ups, downs in value["lengths"]), default=0) or 1
    return Content(
        **{name: value[name] for name in ("read", "more", "ups", "downs", "exact", "near")},
        mixed=value["mixed"],
        # an answer may have been erased since
        groups=[
            Group(count, firsts[first], mixed)
            for count, first, mixed in value["groups"]
            if first in firsts
        ],
        languages=[(code, share) for code, share in value["languages"]],
        lengths=[
            Bar(start, end and end - 1, ups, downs, (ups + downs) / highest)
            for start, end, (ups, downs) in zip(
                (0, *LENGTHS), (*LENGTHS, None), value["lengths"], strict=True
            )
        ],
        counted_at=row.counted_at,
    )


def content_count(project: Project) -> dict[str, Any]:
    """Read the newest MOST training examples and count what they contain."""
    texts = texts_read(project)
    by_digest: dict[bytes, list[Text]] = defaultdict(list)
    for text in texts:
        by_digest[text.digest].append(text)
    distinct = [same[0] for same in by_digest.values()]
    positions = near_duplicates(f"{text.question}\n{text.answer}" for text in distinct)
    near = [
        [text for at in group for text in by_digest[distinct[at].digest]] for group in positions
    ]
    grouped = {text.digest for group in near for text in group}
    exact = [same for digest, same in by_digest.items() if len(same) > 1 and digest not in grouped]
    groups = sorted([*near, *exact], key=lambda group: (-len(group), group[0].completion))
    mixed = [len({text.desirable for text in group}) > 1 for group in groups]
    ups = sum(text.desirable for text in texts)
    return {
        "read": len(texts),
        "more": bounded_count.counted(training(project), most=MOST) > MOST,
        "ups": ups,
        "downs": len(texts) - ups,
        "exact": len(texts) - len(distinct),
        "near": sum(len(group) - 1 for group in positions),
        "mixed": sum(mixed),
        "groups": [
            [len(group), group[0].completion, both]
            for group, both in list(zip(groups, mixed, strict=True))[:GROUPS]
        ],
        "languages": languages_of(texts[:LANGUAGES_READ]),
        "lengths": lengths_of(texts),
    }


def training(project: Project) -> Any:
    return project.examples.filter(split=Split.TRAIN)


def texts_read(project: Project) -> list[Text]:
    rows = training(project).order_by("-created_at", "-completion")
    fields = ("completion", "completion__prompt__messages", "completion__text", "desirable")
    return [
        Text(pk, str(messages[-1]["content"])[:LONGEST], text[:LONGEST], desirable)
        for pk, messages, text, desirable in rows.values_list(*fields)[:MOST].iterator(
            chunk_size=500
        )
    ]


def languages_of(texts: Sequence[Text]) -> list[list[Any]]:
    """Return [ISO code, share] of the most frequent languages of the answers that are long enough
    to tell, the others as ''."""
    from py3langid import classify  # reads its model, which takes a second

    known = [text.answer[:1_000] for text in texts if len(text.answer) >= LANGUAGE_FROM]
    most = Counter(classify(answer)[0] for answer in known).most_common(LANGUAGES)
    rest = len(known) - sum(n for _, n in most)
    return [[code, n / len(known)] for code, n in [*most, ("", rest)] if n]


def lengths_of(texts: Iterable[Text]) -> list[list[int]]:
    """Return [ups, downs] of each bar of LENGTHS, and of longer answers."""
    bars = [[0, 0] for _ in range(len(LENGTHS) + 1)]
    for text in texts:
        size = len(text.answer)
        bar = next((at for at, below in enumerate(LENGTHS) if size < below), len(LENGTHS))
        bars[bar][0 if text.desirable else 1] += 1
    return bars
