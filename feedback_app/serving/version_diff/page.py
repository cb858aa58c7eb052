"""The page of a version diff: answers side by side, with differences marked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import median

from feedback_app.feedback.models import Completion
from feedback_app.serving.models import ChangeReport, FixedAnswer, FixedPrompt

#: Longer answers are shown without marks: a word-by-word diff would take too long.
MARKED_WORDS = 600


@dataclass(frozen=True)
class Piece:
    """A part of an answer; `marked` if the other answer does not contain it."""

    text: str
    marked: bool


@dataclass(frozen=True)
class Column:
    """One version's answer to a prompt, or None while it is missing."""

    version: str
    answer: FixedAnswer | None
    pieces: list[Piece]

    @property
    def words(self) -> int:
        return len(self.answer.text.split()) if self.answer else 0


@dataclass(frozen=True)
class Row:
    """A prompt and every version's answer. `changed` is the share of words that differ from the
    version before, None while one of the two answers is missing."""

    prompt: FixedPrompt
    columns: list[Column]
    changed: float | None


@dataclass(frozen=True)
class Summary:
    """Totals of a version over its answers."""

    version: str
    answers: int
    finished: int
    words: float


def rows_of(report: ChangeReport) -> list[Row]:
    """Return the fixed prompts in order, with the answers under the report's conditions."""
    fixed = list(report.adapter.project.fixed_prompts.select_related("prompt"))
    found = FixedAnswer.objects.filter(
        fixed_prompt__in=fixed, version__in=report.versions, conditions=report.conditions
    )
    known = {(answer.fixed_prompt_id, answer.version): answer for answer in found}
    return [
        row_of(report, prompt, {name: known.get((prompt.pk, name)) for name in report.versions})
        for prompt in fixed
    ]


def row_of(report: ChangeReport, prompt: FixedPrompt, by: dict[str, FixedAnswer | None]) -> Row:
    before, after = by[report.previous], by[report.adapter.name]
    changed = None
    marked: dict[str, list[Piece]] = {}
    if before is not None and after is not None:
        old, new, changed = differences(before.text, after.text)
        marked = {report.previous: old, report.adapter.name: new}
    columns = [
        Column(version, answer, marked.get(version) or plain(answer))
        for version, answer in by.items()
    ]
    return Row(prompt, columns, changed)


def plain(answer: FixedAnswer | None) -> list[Piece]:
    return [Piece(answer.text, marked=False)] if answer is not None else []


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece], float]:
    """Return both texts in pieces, with differing words marked, and the share of marked words."""
    old, new = words_of(before), words_of(after)
    if before == after:
        return [Piece(before, marked=False)], [Piece(after, marked=False)], 0.0
    if max(len(old), len(new)) > MARKED_WORDS:
        return [Piece(before, marked=False)], [Piece(after, marked=False)], 1.0
    left: list[Piece] = []
    right: list[Piece] = []
    marked = 0
    same = SequenceMatcher(None, bare(old), bare(new), autojunk=False)
    for tag, from_old, to_old, from_new, to_new in same.get_opcodes():
        differs = tag != "equal"
        marked += differs * (to_old - from_old + to_new - from_new)
        for side, words in ((left, old[from_old:to_old]), (right, new[from_new:to_new])):
            if words:
                side.append(Piece("".join(words), marked=differs))
    return left, right, marked / (len(old) + len(new))


def words_of(text: str) -> list[str]:
    """Return the words with the white space after each; joined they are the text."""
    return re.findall(r"^\s+|\S+\s*", text)


def bare(words: Sequence[str]) -> list[str]:
    """Return the words without white space, as they are compared."""
    return [word.strip() for word in words]


def summaries(report: ChangeReport, rows: Sequence[Row]) -> list[Summary]:
    """Return one summary per version with answers, in the order of the columns."""
    found = []
    for version in report.versions:
        answers = [c for row in rows for c in row.columns if c.version == version and c.answer]
        if answers:
            finished = [c for c in answers if c.answer.finish_reason == Completion.Finish.STOP]  # type: ignore[union-attr]
            words = median(column.words for column in answers)
            found.append(Summary(version, len(answers), len(finished), words))
    return found
