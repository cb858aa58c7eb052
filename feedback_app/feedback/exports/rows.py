"""KTO examples as rows and lines: JSONL in TRL's unpaired form, CSV for spreadsheets.

Everything streams: rows are read in chunks by separate queries, so a slow download holds no
transaction open, and at most one chunk (or one Parquet row group) is in memory.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.utils.crypto import salted_hmac

from feedback_app.feedback.models import Completion, Project, Vote
from feedback_app.feedback.prompts.tools import tools_of

FORMATS = ("jsonl", "parquet", "csv")
CONTENT_TYPES = {
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
}

CHUNK = 500

COLUMNS = ("prompt", "completion", "label", "weight", "split", "tools")
VOTES = "votes"  # the optional last column
VOTER_LENGTH = 16  # hexadecimal digits, enough to avoid collisions within a project

#: Cells that a spreadsheet would run as a formula: they start with a sign, after blanks that it
#: trims, or after apostrophes, so that exactly one is removed when the file is read.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")

Message = dict[str, Any]
#: Fields that only messages with calls of tools have.
OF_TOOLS = ("tool_calls", "tool_call_id")


@dataclass(frozen=True)
class ExportVote:
    """One vote; `voter` identifies its user within this project."""

    verdict: str
    reasons: list[str]
    comment: str
    source: str
    at: str
    voter: str


@dataclass(frozen=True)
class ExportRow:
    """One example; its fields are the columns. `tools` are the definitions of tools that came with
    the conversation; `votes` is None unless requested."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    weight: float
    split: str
    tools: list[dict[str, Any]] = field(default_factory=list)
    votes: list[ExportVote] | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the columns as plain values; `tools` only where there are some."""
        record = asdict(self)
        if not self.tools:
            del record["tools"]
        if self.votes is None:
            del record[VOTES]
        return record


def export_row(
    completion: Completion, *, label: bool, weight: float, split: str, votes: bool = False
) -> ExportRow:
    """Return a completion's example with the messages that the model saw.

    These are the system prompt at that time and the conversation. Votes must be prefetched
    (`votes_along`).
    """
    system = completion.system_prompt
    return ExportRow(
        prompt=[
            *([{"role": "system", "content": system}] if system else []),
            *(exported(message) for message in completion.prompt.messages),
        ],
        completion=[{"role": "assistant", "content": completion.text}],
        label=label,
        weight=weight,
        split=split,
        tools=tools_of(completion.prompt.messages),
        votes=[export_vote(vote) for vote in completion.votes.all()] if votes else None,
    )


def exported(message: Mapping[str, Any]) -> Message:
    """Return a message's fields in a fixed order."""
    tools = {name: message[name] for name in OF_TOOLS if message.get(name)}
    return {"role": message["role"], "content": message["content"], **tools}


def export_vote(vote: Vote) -> ExportVote:
    return ExportVote(
        verdict=vote.verdict,
        reasons=list(vote.reasons),
        comment=vote.comment,
        source=vote.source,
        at=vote.updated_at.astimezone(UTC).isoformat(timespec="seconds"),
        voter=voter_name(vote.project_id, vote.user_id),
    )


def voter_name(project_id: int, user_id: int) -> str:
    """Return a pseudonym of a user within a project.

    It is keyed by SECRET_KEY, so it cannot be guessed from user ids, nor linked between projects.
    """
    keyed = salted_hmac(f"export.voter.{project_id}", str(user_id), algorithm="sha256")
    return keyed.hexdigest()[:VOTER_LENGTH]


def votes_along() -> Prefetch[Any]:
    """Return the prefetch of votes that count: one query per chunk."""
    return Prefetch("completion__votes", queryset=Vote.objects.standing().order_by("pk"))


def in_chunks(rows: QuerySet[Any], *, key: str = "pk") -> Iterator[Any]:
    """Yield the rows in the order of `key`, in chunks.

    The keys of a chunk are read first: from "key > …" alone PostgreSQL may join the chunk with a
    table that it reads from its beginning, for each chunk.
    """
    after = 0
    ordered = rows.order_by(key)
    keys = ordered.select_related(None).prefetch_related(None).values_list(key, flat=True)
    while chunk := list(keys.filter(**{f"{key}__gt": after})[:CHUNK]):
        yield from ordered.filter(**{f"{key}__in": chunk})
        after = chunk[-1]


def project_rows(project: Project, *, votes: bool = False) -> Iterator[ExportRow]:
    """Yield every example of the project in the order of its completions."""
    examples = project.examples.select_related("completion__prompt").defer(
        "completion__token_ids", "completion__prompt_token_ids"
    )
    if votes:
        examples = examples.prefetch_related(votes_along())
    for example in in_chunks(examples):
        yield export_row(
            example.completion,
            label=example.desirable,
            weight=example.weight,
            split=example.split,
            votes=votes,
        )


# -- the formats


def jsonl_lines(rows: Iterable[ExportRow], *, votes: bool = False) -> Iterator[bytes]:
    """Yield one JSON object per line, with `votes` if the row has them."""
    for row in rows:
        yield as_json(row.as_record()).encode() + b"\n"


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def neutralised(cell: str) -> str:
    """Return the cell with a leading apostrophe if a spreadsheet would run it as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def as_written(cell: str) -> str:
    """Undo `neutralised`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_line(cells: Iterable[str]) -> bytes:
    """Return one CSV record; every cell is quoted, so line breaks stay inside."""
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerow([neutralised(cell) for cell in cells])
    return buffer.getvalue().encode()


def csv_lines(rows: Iterable[ExportRow], *, votes: bool = False) -> Iterator[bytes]:
    """Yield a header, then one record per example: prompt, tools and votes as JSON, the answer as
    text."""
    yield csv_line((*COLUMNS, VOTES) if votes else COLUMNS)
    for row in rows:
        cells = (
            as_json(row.prompt),
            row.completion[0]["content"],
            "true" if row.label else "false",
            repr(row.weight),
            row.split,
            as_json(row.tools) if row.tools else "",
        )
        yield csv_line((*cells, as_json(row.as_record()[VOTES])) if votes else cells)


LINES = {"jsonl": jsonl_lines, "csv": csv_lines}
