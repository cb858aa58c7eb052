"""Writes recognised rows in bulk. The rule that turns votes into examples is the services' own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.db import transaction

from feedback_app.accounts.models import User
from feedback_app.feedback.amounts import votes_amount_to
from feedback_app.feedback.imports.readers import Record
from feedback_app.feedback.imports.shapes import Candidate, RowRefused, recognise
from feedback_app.feedback.models import (
    IMPORTED_VERSION,
    Completion,
    Example,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.services import (
    completion_hash,
    content_hash,
    split_of,
    vote_cast,
)

CHUNK_ROWS = 500
CHUNK_CHARACTERS = 4_000_000
REASON_LIMIT = 300

LABELLED_OTHERWISE = "the same answer to the same prompt has the other label already"


@dataclass(frozen=True)
class Refusal:
    """A row that was not imported, and why."""

    number: int
    reason: str
    excerpt: str


@dataclass
class Chunk:
    """Rows that are written together: what was recognised, and what was refused so far."""

    last: int = 0
    rows: int = 0
    share: float = 0.0
    items: list[tuple[Record, Candidate]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    shapes: set[str] = field(default_factory=set)

    def refuse(self, record: Record, reason: str) -> None:
        # a reason may quote the row, and the row may hold anything
        told = reason.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        self.refusals.append(Refusal(record.number, told[:REASON_LIMIT], record.excerpt))


@dataclass(frozen=True)
class Written:
    """How many examples, prompts without an answer, and duplicates a chunk came to."""

    imported: int
    prompts: int
    duplicates: int


def in_chunks(records: Iterable[Record]) -> Iterator[Chunk]:
    """Recognises the rows and gathers them until a chunk is large enough to commit."""
    chunk, characters = Chunk(), 0
    for record in records:
        chunk.last = record.number
        chunk.rows += 1
        characters += len(record.text)
        try:
            found = recognise(record)
        except RowRefused as refused:
            chunk.refuse(record, str(refused))
        else:
            chunk.shapes.add(found.shape)
            for candidate in found.candidates:
                chunk.items.append((record, candidate))
                characters += candidate.characters
        if chunk.rows == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = Chunk(), 0
    if chunk.rows:
        yield chunk


def chunk_write(chunk: Chunk, *, project: Project, by: User) -> Written:
    """Stores the chunk's rows; call it in a transaction. Rows that contradict are refused."""
    hashes = [content_hash(candidate.messages) for _, candidate in chunk.items]
    prompts, new_prompts = prompts_ensure(chunk, hashes, project=project)
    digests = [
        completion_hash(prompt_hash=digest, system_prompt=item.system, text=item.text or "")
        for digest, (_, item) in zip(hashes, chunk.items, strict=True)
    ]
    there = completions_by_hash(project, digests)
    new: dict[str, tuple[Completion, Verdict]] = {}
    imported = duplicates = only_prompts = 0
    for (record, item), prompt_hash, digest in zip(chunk.items, hashes, digests, strict=True):
        if item.text is None or item.verdict is None:
            # the second row with a new prompt is a duplicate of the first
            fresh = prompt_hash in new_prompts
            new_prompts.discard(prompt_hash)
            only_prompts += fresh
            duplicates += not fresh
            continue
        if digest in new:
            if new[digest][1] == item.verdict:
                duplicates += 1
            else:
                chunk.refuse(record, LABELLED_OTHERWISE)
        elif digest in there and there[digest].vote_count:
            if contradicts(there[digest], item.verdict):
                chunk.refuse(record, LABELLED_OTHERWISE)
            else:
                duplicates += 1
        elif digest in there:
            # sampled before and not judged yet: the label is its first vote
            vote_cast(completion=there[digest], verdict=item.verdict, by=by, source=Source.IMPORT)
            there |= completions_by_hash(project, [digest])
            imported += 1
        else:
            completion = Completion(
                project=project,
                prompt=prompts[prompt_hash],
                text=item.text,
                content_hash=digest,
                version=IMPORTED_VERSION,
                topic=prompts[prompt_hash].topic,
                system_prompt=item.system,
                finish_reason=Completion.Finish.STOP,
                source=Source.IMPORT,
                vote_count=1,
            )
            new[digest] = (completion, item.verdict)
            imported += 1
    examples_create(list(new.values()), by=by)
    return Written(imported=imported, prompts=only_prompts, duplicates=duplicates)


def chunk_try(chunk: Chunk, *, project: Project, by: User) -> Written:
    """What `chunk_write` would come to: written and taken back, with all that hangs on it."""
    with transaction.atomic():
        written = chunk_write(chunk, project=project, by=by)
        transaction.set_rollback(True)
    return written


def prompts_ensure(
    chunk: Chunk, hashes: list[str], *, project: Project
) -> tuple[dict[str, Prompt], set[str]]:
    """The chunk's prompts by their hash, made where they are missing; and which are new."""
    wanted: dict[str, Candidate] = {}
    for digest, (_, candidate) in zip(hashes, chunk.items, strict=True):
        wanted.setdefault(digest, candidate)
    rows = Prompt.objects.filter(project=project, content_hash__in=wanted).defer("messages")
    known = {prompt.content_hash for prompt in rows}
    Prompt.objects.bulk_create(
        [
            Prompt(
                project=project,
                messages=list(item.messages),
                content_hash=digest,
                topic=item.topic,
                source=Source.IMPORT,
                split=split_of(digest, heldout_percent=project.heldout_percent),
            )
            for digest, item in wanted.items()
            if digest not in known
        ],
        # someone may have made it just now
        ignore_conflicts=True,
    )
    return {prompt.content_hash: prompt for prompt in rows.all()}, set(wanted) - known


def completions_by_hash(project: Project, digests: Iterable[str]) -> dict[str, Completion]:
    """What the project has of these already; of several, one that has votes."""
    rows = Completion.objects.filter(project=project, content_hash__in=list(digests))
    light = rows.select_related("example").only(
        "content_hash", "vote_count", "project_id", "example__desirable"
    )
    return {row.content_hash: row for row in light.order_by("vote_count", "pk")}


def contradicts(completion: Completion, verdict: Verdict) -> bool:
    """Whether the votes amount to the other verdict; a tie contradicts nothing."""
    example = getattr(completion, "example", None)
    return example is not None and example.desirable != (verdict == Verdict.UP)


def examples_create(new: list[tuple[Completion, Verdict]], *, by: User) -> None:
    """Completions with their first vote, its event, and the example that it amounts to."""
    Completion.objects.bulk_create([completion for completion, _ in new])
    Vote.objects.bulk_create(
        Vote(
            completion=completion,
            user=by,
            project_id=completion.project_id,
            verdict=verdict,
            source=Source.IMPORT,
        )
        for completion, verdict in new
    )
    VoteEvent.objects.bulk_create(
        VoteEvent(completion=completion, user=by, verdict=verdict, source=Source.IMPORT)
        for completion, verdict in new
    )
    amounts = [
        (completion, votes_amount_to([verdict], text=completion.text))
        for completion, verdict in new
    ]
    Example.objects.bulk_create(
        Example(
            completion=completion,
            project_id=completion.project_id,
            desirable=amount.desirable,
            weight=amount.weight,
            split=completion.prompt.split,
        )
        for completion, amount in amounts
        if amount is not None
    )
