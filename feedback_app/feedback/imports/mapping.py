"""Which column of a file is which of ours: what is there, a first guess, and what is missing."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback_app.feedback.imports.readers import (
    Columns,
    Record,
    Unreadable,
    cleaned,
    open_path,
    open_rows,
)
from feedback_app.feedback.imports.recognition import Labels, said_by
from feedback_app.feedback.models import Verdict
from feedback_app.web.errors import UserError

#: What a column can be, with what people are told of it.
FIELDS = {
    "prompt": "The question, or the conversation so far",
    "completion": "The answer",
    "label": "Whether the answer is good",
    "chosen": "The better answer of a pair",
    "rejected": "The worse answer of a pair",
    "messages": "A conversation whose last message is the answer",
    "topic": "The topic of a prompt",
    "gold": "The right verdict: makes the answer a gold item",
}
#: Names that say it as well as ours, in files that say it not in ours.
GUESSES = {
    "prompt": ("question", "instruction", "query", "input"),
    "completion": ("answer", "response", "reply"),
    "label": ("rating", "thumb", "thumbs", "verdict", "feedback", "score"),
    "messages": ("conversation", "conversations"),
    "topic": ("tag", "category"),
}
LOOK_ROWS = 1_000
LOOK_CHARACTERS = 4_000_000
COLUMNS_KNOWN = 1_000
SAMPLES_SHOWN = 3
VALUES_SHOWN = 12
SAMPLE_LENGTH = 60


@dataclass(frozen=True)
class Column:
    """A column of the file, with a few of the values in it."""

    name: str
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """A label of the file, in how many of the first rows it stands, and what it is taken for."""

    text: str
    count: int
    verdict: Verdict | None


@dataclass(frozen=True)
class Survey:
    """The first rows of a file under the file's own names."""

    rows: tuple[Mapping[str, Any], ...]

    @property
    def columns(self) -> list[Column]:
        """The columns that can be chosen: one whose name no page can send back is left out."""
        samples: dict[str, list[str]] = {}
        for row in self.rows:
            for name, value in row.items():
                room = name in samples or (usable(name) and len(samples) < COLUMNS_KNOWN)
                known = samples.setdefault(name, []) if room else None
                if known is None or len(known) == SAMPLES_SHOWN:
                    continue
                text = cleaned(" ".join(str(value)[: SAMPLE_LENGTH * 4].split()))
                text = text if len(text) <= SAMPLE_LENGTH else text[: SAMPLE_LENGTH - 1] + "…"
                if value is not None and text and text not in known:
                    known.append(text)
        return [Column(name, tuple(values)) for name, values in samples.items()]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def labels(self, column: str, meaning: Labels) -> list[Value]:
        """What stands in a column of labels, the most frequent first."""
        seen = (row.get(column) for row in self.rows)
        counts = Counter(cleaned(said_by(value)) for value in seen if value is not None)
        return [
            Value(text[:SAMPLE_LENGTH], count, meaning.meaning(text))
            for text, count in counts.most_common(VALUES_SHOWN)
        ]


def usable(name: str) -> bool:
    return bool(name) and name == cleaned(name) and len(name) <= 200


def survey(path: Path) -> Survey:
    """Looks at the first rows. Raises Unreadable if there is none to look at."""
    rows: list[Mapping[str, Any]] = []
    with open_path(path) as file:
        try:
            rows.extend(row.value for row in few(open_rows(file, every=True).records()))
        except Unreadable:
            # damaged further on: the import will say so, when it gets there
            if not rows:
                raise
    return Survey(tuple(rows))


def few(records: Iterator[Record]) -> Iterator[Record]:
    """So many rows that looking at them costs little, however long they are."""
    characters = 0
    for count, record in enumerate(records, start=1):
        yield record
        characters += len(record.text) or sum(len(str(value)) for value in record.value.values())
        if count == LOOK_ROWS or characters > LOOK_CHARACTERS:
            return


# -- from names to columns


def chosen_for(field: str, *, columns: Columns, names: Collection[str]) -> str:
    """The file's column that is `field` now; empty if none is."""
    if field in columns:
        return columns[field]
    if field in names:
        return field
    unnamed = field == "completion" and columns.get("output") != ""
    return "output" if unnamed and "output" in names else ""


def columns_of(choice: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """What an import has to know so that each field is the column that was chosen for it."""
    columns = {}
    for field in FIELDS:
        theirs = choice.get(field, "")
        # a column that the first rows do not show may come later
        if theirs not in ("", field) or (not theirs and field in names):
            columns[field] = theirs
    if "output" in names and choice.get("completion") not in ("output", "completion"):
        columns["output"] = ""
    return columns


def columns_guess(names: Collection[str]) -> dict[str, str]:
    """Columns whose names say what they are: of a file that has none of our names, or that fits
    no shape without them, or none that has labels."""
    present = {field: chosen_for(field, columns={}, names=names) for field in FIELDS}
    there = {field for field, theirs in present.items() if theirs}
    guess = {
        field: next(name for name in others if name in names)
        for field, others in GUESSES.items()
        if field not in there and any(name in names for name in others)
    }
    fits = not missing(there | guess.keys())
    labelled = guess.keys() >= {"completion", "label"}
    return guess if not there or (fits and (missing(there) or labelled)) else {}


def missing(fields: Collection[str]) -> str:
    """What rows with these fields lack to be understood; empty if nothing."""
    has = set(fields)
    if {"chosen", "rejected"} <= has:
        return ""
    if "chosen" in has or "rejected" in has:
        other = "rejected" if "chosen" in has else "chosen"
        return f"A pair needs both answers: choose the column for {other}."
    if "completion" in has:
        if has & {"label", "gold"}:
            return ""
        return "The answers have no label: choose the column that says whether each is good."
    if has & {"label", "gold"} and "messages" not in has:
        return "There are labels but no answers: choose the column for completion."
    if has & {"prompt", "messages"}:
        return ""
    return "Nothing to import yet: choose the columns for prompt, completion and label."


def labels_of(up: Collection[str], down: Collection[str]) -> Labels:
    """The words that mean up and down. Raises UserError for one that is to mean both."""
    labels = Labels(frozenset(map(said_by, up)), frozenset(map(said_by, down)))
    if both := sorted(labels.up & labels.down):
        raise UserError(f"These cannot mean both up and down: {', '.join(both)}.")
    return labels
