"""Writing recognised rows in bulk, by the same example rule as votes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.db import transaction

from feedback_app.accounts.models import Role, User, roles_from
from feedback_app.feedback.examples.rule import example_of
from feedback_app.feedback.examples.services import examples_store
from feedback_app.feedback.imports.readers import Record
from feedback_app.feedback.imports.recognition import (
    AS_KNOWN,
    Candidate,
    Labels,
    RowRefused,
    recognise,
)
from feedback_app.feedback.models import (
    IMPORTED_VERSION,
    Completion,
    GoldItem,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.prompts.completions import completion_hash
from feedback_app.feedback.prompts.services import content_hash, split_of
from feedback_app.feedback.votes.services import vote_cast

CHUNK_ROWS = 500
CHUNK_CHARACTERS = 4_000_000
REASON_LIMIT = 300

LABELLED_OTHERWISE = "the same answer to the same prompt already has the other label"
GOLD_OTHERWISE = "the same answer to the same prompt is already a gold item with the other verdict"
NOT_MADE_GOLD = (
    "the answer exists already and is unchanged: imports add only new answers to the gold set"
)
GOLD_FOR_ADMINS = "only admins and owners of the project may add answers to the gold set"


@dataclass(frozen=True)
class Refusal:
    """A row that was not imported, and the reason."""

    number: int
    reason: str
    excerpt: str


@dataclass
class Chunk:
    """Rows that are written together, and the rows refused so far."""

    last: int = 0
    rows: int = 0
    share: float = 0.0
    items: list[tuple[Record, Candidate]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    shapes: set[str] = field(default_factory=set)

    def refuse(self, record: Record, reason: str) -> None:
        # a reason may quote the row, whose text may be invalid
        text = reason.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        self.refusals.append(Refusal(record.number, text[:REASON_LIMIT], record.excerpt))


@dataclass(frozen=True)
class Written:
    """Numbers of examples, prompts without an answer, duplicates and gold items in a chunk."""

    imported: int
    prompts: int
    duplicates: int
    gold: int


def in_chunks(records: Iterable[Record], *, labels: Labels = AS_KNOWN) -> Iterator[Chunk]:
    """Recognise rows and yield them in chunks that are large enough to commit."""
    chunk, characters = Chunk(), 0
    for record in records:
        chunk.last = record.number
        chunk.rows += 1
        characters += len(record.text)
        try:
            found = recognise(record, labels)
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
    """Store the chunk's rows, refusing contradictory ones. Call it in a transaction."""
    hashes = [content_hash(candidate.messages) for _, candidate in chunk.items]
    prompts, new_prompts = prompts_ensure(chunk, hashes, project=project)
    digests = [
        completion_hash(prompt_hash=digest, system_prompt=item.system, text=item.text or "")
        for digest, (_, item) in zip(hashes, chunk.items, strict=True)
    ]
    there = completions_by_hash(project, digests)
    new: dict[str, tuple[Completion, Candidate]] = {}
    imported = duplicates = only_prompts = 0
    any_gold = any(item.gold for _, item in chunk.items)
    may_gold = any_gold and may_add_gold(by, project=project)
    for (record, item), prompt_hash, digest in zip(chunk.items, hashes, digests, strict=True):
        if item.text is None:
            # the second row with a new prompt is a duplicate of the first
            fresh = prompt_hash in new_prompts
            new_prompts.discard(prompt_hash)
            only_prompts += fresh
            duplicates += not fresh
        elif item.gold and not may_gold:
            chunk.refuse(record, GOLD_FOR_ADMINS)
        elif digest in new or is_settled(there.get(digest), item):
            before, earlier = new.get(digest) or (there[digest], None)
            verdict = (earlier.gold or earlier.verdict) if earlier else example_verdict(before)
            if reason := contradiction(item, gold=before.gold, verdict=verdict):
                chunk.refuse(record, reason)
            else:
                duplicates += 1
        elif digest in there and item.verdict:
            # it exists without votes: the label is its first vote
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
                vote_count=1 if item.verdict else 0,
                gold=bool(item.gold),
                decided=item.gold or "",
            )
            new[digest] = (completion, item)
            imported += 1
    answers_create(list(new.values()), by=by)
    gold = sum(completion.gold for completion, _ in new.values())
    return Written(imported=imported, prompts=only_prompts, duplicates=duplicates, gold=gold)


def chunk_try(chunk: Chunk, *, project: Project, by: User) -> Written:
    """Return the result of `chunk_write` and roll it back."""
    with transaction.atomic():
        written = chunk_write(chunk, project=project, by=by)
        transaction.set_rollback(True)
    return written


def prompts_ensure(
    chunk: Chunk, hashes: list[str], *, project: Project
) -> tuple[dict[str, Prompt], set[str]]:
    """Return the chunk's prompts by hash, created if missing, and the hashes of new ones."""
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
                split=split_of(digest, project=project),
            )
            for digest, item in wanted.items()
            if digest not in known
        ],
        # another transaction may have created it meanwhile
        ignore_conflicts=True,
    )
    return {prompt.content_hash: prompt for prompt in rows.all()}, set(wanted) - known


def completions_by_hash(project: Project, digests: Iterable[str]) -> dict[str, Completion]:
    """Return the project's completions with these hashes; of duplicates, one with votes."""
    rows = Completion.objects.filter(project=project, content_hash__in=list(digests))
    light = rows.select_related("example").only(
        "content_hash", "vote_count", "project_id", "gold", "decided", "example__desirable"
    )
    return {row.content_hash: row for row in light.order_by("vote_count", "pk")}


def may_add_gold(user: User, *, project: Project) -> bool:
    """Return whether the user may add gold items."""
    return project.memberships.filter(user=user, role__in=roles_from(Role.ADMIN)).exists()


def is_settled(known: Completion | None, item: Candidate) -> bool:
    """Return whether the completion exists and this row adds nothing to it."""
    return known is not None and bool(known.vote_count or known.gold or item.gold)


def contradiction(item: Candidate, *, gold: bool, verdict: Verdict | None) -> str:
    """Return why a row about an existing completion is refused; empty if they agree."""
    if item.gold and not gold:
        return NOT_MADE_GOLD
    # a tie contradicts nothing
    if verdict is None or (item.gold or item.verdict) == verdict:
        return ""
    return GOLD_OTHERWISE if gold else LABELLED_OTHERWISE


def example_verdict(completion: Completion) -> Verdict | None:
    """Return the verdict of a completion's example, if it has one."""
    example = getattr(completion, "example", None)
    return None if example is None else Verdict.UP if example.desirable else Verdict.DOWN


def answers_create(new: list[tuple[Completion, Candidate]], *, by: User) -> None:
    """Store completions with their vote and its event, gold item, and example."""
    Completion.objects.bulk_create([completion for completion, _ in new])
    GoldItem.objects.bulk_create(
        GoldItem(
            completion=completion,
            project_id=completion.project_id,
            verdict=item.gold,
            by=by,
            was_queued=False,
        )
        for completion, item in new
        if item.gold
    )
    votes = [(completion, item.verdict) for completion, item in new if item.verdict]
    Vote.objects.bulk_create(
        Vote(
            completion=completion,
            user=by,
            project_id=completion.project_id,
            verdict=verdict,
            source=Source.IMPORT,
        )
        for completion, verdict in votes
    )
    VoteEvent.objects.bulk_create(
        VoteEvent(completion=completion, user=by, verdict=verdict, source=Source.IMPORT)
        for completion, verdict in votes
    )
    examples = (
        example_of(completion, [item.verdict] if item.verdict else []) for completion, item in new
    )
    examples_store(example for example in examples if example is not None)
