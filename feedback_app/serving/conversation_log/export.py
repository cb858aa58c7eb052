"""Conversations as files: one row per turn, with the person's pseudonym as in other exports."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Prefetch, QuerySet

from feedback_app.feedback.exports.rows import as_json, csv_line, in_chunks, voter_name
from feedback_app.feedback.models import Project, Verdict, Vote
from feedback_app.serving.conversation_log.listing import LogFilter, origin_of, source_key
from feedback_app.serving.models import Turn

FORMATS = ("jsonl", "csv")
COLUMNS = (
    "conversation",
    "source",
    "person",
    "turn",
    "position",
    "question",
    "answer",
    "version",
    "system_prompt",
    "ups",
    "downs",
    "at",
)


def turns_of(project: Project, chosen: LogFilter) -> QuerySet[Turn]:
    """Return the turns of the conversations that match, of all branches."""
    conversations: Any = chosen.select(project).values_list("pk", flat=True)
    # once instead of for each chunk, where it reads texts
    conversations = list(conversations) if chosen.windowed else conversations.order_by()
    votes = Prefetch("completion__votes", Vote.objects.standing().only("completion_id", "verdict"))
    return (
        Turn.objects.filter(conversation__in=conversations)
        .annotate(**origin_of("conversation__user"))
        .select_related("conversation", "completion")
        .defer("completion__token_ids", "completion__prompt_token_ids")
        .prefetch_related(votes)
    )


def records(project: Project, chosen: LogFilter) -> Iterator[dict[str, Any]]:
    """Yield one record per turn, in the order in which they were written."""
    for turn in in_chunks(turns_of(project, chosen)):
        answer = turn.completion
        verdicts = [vote.verdict for vote in answer.votes.all()] if answer else []
        yield {
            "conversation": str(turn.conversation_id),
            "source": source_key(turn),
            "person": voter_name(project.pk, turn.conversation.user_id),
            "turn": turn.pk,
            "position": turn.position,
            "question": turn.user_message,
            "answer": answer.text if answer else None,
            "version": answer.version if answer else None,
            "system_prompt": answer.system_prompt if answer else None,
            "ups": verdicts.count(Verdict.UP),
            "downs": verdicts.count(Verdict.DOWN),
            "at": turn.created_at.isoformat(timespec="seconds"),
        }


def jsonl_lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield one JSON object per line."""
    for row in rows:
        yield as_json(row).encode() + b"\n"


def csv_lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield a header, then one record per turn; what is missing is empty."""
    yield csv_line(COLUMNS)
    for row in rows:
        yield csv_line("" if row[name] is None else str(row[name]) for name in COLUMNS)


LINES = {"jsonl": jsonl_lines, "csv": csv_lines}
