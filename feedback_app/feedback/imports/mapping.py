"""Mapping a file's columns to our fields: a survey of the file, a first guess, what is missing."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from feedback_app.feedback.imports.bridges.registry import format_of
from feedback_app.feedback.imports.opening import open_rows
from feedback_app.feedback.imports.readers import (
    Columns,
    Record,
    Unreadable,
    cleaned,
)
from feedback_app.feedback.imports.recognition import Labels, label_text
from feedback_app.feedback.models import Verdict
from feedback_app.web.errors import UserError

#: Our fields and their descriptions in the form.
FIELDS = {
    "prompt": "The question, or the conversation so far",
    "completion": "The answer",
    "label": "Whether the answer is good",
    "chosen": "The better answer of a pair",
    "rejected": "The worse answer of a pair",
    "messages": "A conversation whose last message is the answer",
    "topic": "The topic of a prompt",
    "tools": "Definitions of the tools that the answers could call",
    "gold": "The right verdict: makes the answer a gold item",
}
#: Other common names of our fields, for files that do not use ours.
GUESSES = {
    "prompt": ("question", "instruction", "query", "input"),
    "completion": ("answer", "response", "reply"),
    "label": ("rating", "thumb", "thumbs", "verdict", "feedback", "score"),
    "messages": ("conversation", "conversations"),
    "topic": ("tag", "category"),
}
LOOK_ROWS = 1_000
FORMAT_ROWS = 20
LOOK_CHARACTERS = 4_000_000
COLUMNS_KNOWN = 1_000
SAMPLES_SHOWN = 3
VALUES_SHOWN = 12
SAMPLE_LENGTH = 60


@dataclass(frozen=True)
class Column:
    """A column of the file with some of its values."""

    name: str
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """A label of the file, its number in the first rows, and the verdict that it means."""

    text: str
    count: int
    verdict: Verdict | None


@dataclass(frozen=True)
class Survey:
    """The first rows of a file under the file's own column names."""

    rows: tuple[Mapping[str, Any], ...]

    @property
    def columns(self) -> list[Column]:
        """Columns that can be chosen; names that a form cannot send back are left out."""
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
    def product(self) -> str:
        """The format of another product that the first rows have; empty for a file of columns."""
        return next((found for row in self.rows[:FORMAT_ROWS] if (found := format_of(row))), "")

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def labels(self, column: str, meaning: Labels) -> list[Value]:
        """Return the values of a label column, most frequent first."""
        seen = (row.get(column) for row in self.rows)
        counts = Counter(cleaned(label_text(value)) for value in seen if value is not None)
        return [
            Value(text[:SAMPLE_LENGTH], count, meaning.meaning(text))
            for text, count in counts.most_common(VALUES_SHOWN)
        ]


def usable(name: str) -> bool:
    return bool(name) and name == cleaned(name) and len(name) <= 200


def survey(file: IO[bytes]) -> Survey:
    """Read the first rows of an open file. Raise Unreadable if there are none."""
    rows: list[Mapping[str, Any]] = []
    try:
        rows.extend(row.value for row in few(open_rows(file, every=True).records()))
    except Unreadable:
        # damaged later in the file: the import reports it there
        if not rows:
            raise
    return Survey(tuple(rows))


def few(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the first rows up to a bound on rows and characters."""
    characters = 0
    for count, record in enumerate(records, start=1):
        yield record
        characters += len(record.text) or sum(len(str(value)) for value in record.value.values())
        if count == LOOK_ROWS or characters > LOOK_CHARACTERS:
            return


# -- from names to columns


def chosen_for(field: str, *, columns: Columns, names: Collection[str]) -> str:
    """Return the file's column for `field`; empty if there is none."""
    if field in columns:
        return columns[field]
    if field in names:
        return field
    unnamed = field == "completion" and columns.get("output") != ""
    return "output" if unnamed and "output" in names else ""


def columns_of(choice: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Return the mapping with which each field is read from its chosen column."""
    columns = {}
    for field in FIELDS:
        theirs = choice.get(field, "")
        # the first rows may lack a column that later rows have
        if theirs not in ("", field) or (not theirs and field in names):
            columns[field] = theirs
    if "output" in names and choice.get("completion") not in ("output", "completion"):
        columns["output"] = ""
    return columns


def columns_guess(names: Collection[str]) -> dict[str, str]:
    """Return a mapping guessed from the column names.

    It applies to files without our names, without a shape that these fit, or without labels.
    """
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
    """Return what rows with these fields lack to be imported; empty if nothing."""
    has = set(fields)
    if {"chosen", "rejected"} <= has:
        return ""
    if "chosen" in has or "rejected" in has:
        other = "rejected" if "chosen" in has else "chosen"
        return f"A pair needs two answers. Choose the column for {other}."
    if "completion" in has:
        if has & {"label", "gold"}:
            return ""
        return "The answers have no labels. Choose the column for label."
    if has & {"label", "gold"} and "messages" not in has:
        return "There are labels but no answers. Choose the column for completion."
    if has & {"prompt", "messages"}:
        return ""
    return "Nothing to import yet. Choose the columns for prompt, completion and label."


def labels_of(up: Collection[str], down: Collection[str]) -> Labels:
    """Return the labels that mean up and down. Raise UserError if one means both."""
    labels = Labels(frozenset(map(label_text, up)), frozenset(map(label_text, down)))
    if both := sorted(labels.up & labels.down):
        raise UserError(f"Labels cannot mean both up and down: {', '.join(both)}.")
    return labels
