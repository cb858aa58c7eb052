"""The page of a version diff: answers side by side, with differences marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from feedback_app.feedback.models import Completion, Project
from feedback_app.serving.models import ChangeReport, FixedAnswer, FixedPrompt
from feedback_app.serving.version_diff.services import conditions_of
from feedback_app.web.word_diff import Piece, differences


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


def rows_side_by_side(project: Project, versions: Sequence[str]) -> list[Row]:
    """Return the fixed prompts in order, with the answers that these versions have given under the
    project's present conditions; words are marked that the first version's answer does not have."""
    fixed = list(project.fixed_prompts.select_related("prompt"))
    found = FixedAnswer.objects.filter(
        fixed_prompt__in=fixed, version__in=versions, conditions=conditions_of(project)
    )
    known = {(answer.fixed_prompt_id, answer.version): answer for answer in found}
    rows = []
    for prompt in fixed:
        answers = [known.get((prompt.pk, version)) for version in versions]
        columns = [
            Column(version, answer, marked_against(answers[0], answer))
            for version, answer in zip(versions, answers, strict=True)
        ]
        rows.append(Row(prompt, columns, changed=None))
    return rows


def marked_against(first: FixedAnswer | None, answer: FixedAnswer | None) -> list[Piece]:
    """Return an answer in pieces; marked is what `first` does not have."""
    if first is None or answer is None or first is answer:
        return plain(answer)
    return differences(first.text, answer.text)[1]


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
