"""What can happen to projects, prompts, completions and votes. Each function is one deed."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from django.db import transaction
from django.db.models import Max

from feedback_app.accounts.models import AuditEvent, Membership, Role, User
from feedback_app.feedback.amounts import example_of
from feedback_app.feedback.errors import BadRequest
from feedback_app.feedback.models import (
    BASE_VERSION,
    Completion,
    Example,
    Project,
    Prompt,
    Sampling,
    Skip,
    Source,
    Split,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.reading import is_hasty
from feedback_app.feedback.services_flood import undo_note, votes_limit
from feedback_app.feedback.services_guidelines import guidelines_write
from feedback_app.feedback.services_pauses import gold_answer_record
from feedback_app.feedback.services_queue import (
    lease_release,
    lease_take,
    slot_free,
)
from feedback_app.feedback.tallies import tally_forget
from feedback_app.feedback.turns import transaction_in_turn
from feedback_app.feedback.vote_rows import completion_lock, vote_first, vote_of
from feedback_app.feedback.webhooks.events import vote_told

COMMENT_LIMIT = 2_000
ROLES = ("user", "assistant")


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


def project_create(
    *,
    slug: str,
    name: str,
    base_model: str,
    owner: User,
    system_prompt: str = "",
    guidelines: str = "",
    **settings: int | float,
) -> Project:
    """An empty project; its owner may do everything in it."""
    with transaction.atomic():
        project = Project(
            slug=slug,
            name=name,
            base_model=base_model,
            system_prompt=system_prompt,
            **settings,
        )
        project.full_clean()
        project.save()
        if guidelines_write(locked=project, text=guidelines, by=owner):
            project.save(update_fields=["guidelines", "guidelines_number"])
        member_set(project=project, user=owner, role=Role.OWNER)
    return project


def member_set(*, project: Project, user: User, role: Role) -> Membership:
    """Gives `user` this role in the project, whatever it was before."""
    membership, _ = Membership.objects.update_or_create(
        project=project, user=user, defaults={"role": role}
    )
    return membership


def audit(
    *, project: Project, actor: User | None, action: str, target: str, reason: str = ""
) -> None:
    """Writes who did what; call it in the deed's own transaction."""
    AuditEvent.objects.create(
        project=project, actor=actor, action=action, target=target, reason=reason
    )


# -- prompts


def content_hash(messages: Sequence[Message]) -> str:
    """SHA-256 of the conversation, the same for equal conversations on every machine."""
    canonical = json.dumps(
        [[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def split_of(digest: str, *, heldout_percent: int) -> Split:
    """Decided by the prompt alone, so that no prompt is on both sides."""
    return Split.HELDOUT if int(digest[:8], 16) % 100 < heldout_percent else Split.TRAIN


def messages_check(messages: Sequence[Message]) -> None:
    """Raises BadRequest with every fault of a conversation that a prompt cannot have."""
    faults = []
    if not messages:
        faults.append("a prompt needs at least one message")
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            faults.append(f"message {index + 1} has the role {message.get('role')!r}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            faults.append(f"message {index + 1} is empty")
    if messages and messages[-1].get("role") != "user":
        faults.append("the last message must be the user's")
    if faults:
        raise BadRequest("; ".join(faults))


def prompt_get_or_create(
    *, project: Project, messages: Sequence[Message], source: Source, topic: str = ""
) -> Prompt:
    """The project's prompt with this conversation; a second one is never made."""
    messages_check(messages)
    digest = content_hash(messages)
    prompt, _ = Prompt.objects.get_or_create(
        project=project,
        content_hash=digest,
        defaults={
            "messages": list(messages),
            "topic": topic,
            "source": source,
            "split": split_of(digest, heldout_percent=project.heldout_percent),
        },
    )
    return prompt


def prompts_add(
    *, project: Project, prompts: Iterable[tuple[str, Sequence[Message]]], source: Source
) -> int:
    """Adds (topic, messages) pairs; returns how many are new."""
    before = project.prompts.count()
    with transaction.atomic():
        for topic, messages in prompts:
            prompt_get_or_create(project=project, messages=messages, source=source, topic=topic)
    return project.prompts.count() - before


# -- completions


@dataclass(frozen=True)
class Answer:
    """What an engine said, with the ids of the tokens that it read and wrote."""

    text: str
    version: str
    finish_reason: str
    prompt_token_ids: list[int] | None
    token_ids: list[int] | None


def storable(text: str) -> str:
    """Text as every database can keep it: PostgreSQL stores no NUL, and a model may write one."""
    return text.replace("\x00", "\ufffd")


def completion_hash(*, prompt_hash: str, system_prompt: str, text: str) -> str:
    """SHA-256 of a prompt with its answer: equal for what nobody could tell apart."""
    canonical = json.dumps([prompt_hash, system_prompt, text], ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def version_number(version: str) -> int:
    """The number of an adapter's name, `<slug>@<n>`; 0 for the base and for imports."""
    _, _, number = version.rpartition("@")
    return int(number) if "@" in version and number.isdecimal() and len(number) < 10 else 0


def completion_create(
    *,
    project: Project,
    prompt: Prompt,
    answer: Answer,
    source: Source,
    sampling: Sampling | None = None,
    system_prompt: str | None = None,
) -> Completion:
    """Stores an answer. Sampled answers join the annotation queue, balanced by prompt.

    `system_prompt` is what the version was told, if that was not the project's.
    """
    position = 0
    if sampling is not None:
        last = prompt.completions.filter(queued=True).aggregate(last=Max("queue_position"))["last"]
        position = 0 if last is None else last + 1
    text = storable(answer.text)
    return Completion.objects.create(
        project=project,
        prompt=prompt,
        text=text,
        content_hash=completion_hash(
            prompt_hash=prompt.content_hash, system_prompt=project.system_prompt, text=text
        ),
        version=answer.version,
        version_number=version_number(answer.version),
        topic=prompt.topic,
        system_prompt=project.system_prompt if system_prompt is None else system_prompt,
        prompt_token_ids=answer.prompt_token_ids,
        token_ids=answer.token_ids,
        finish_reason=answer.finish_reason,
        source=source,
        sampling=sampling,
        queued=sampling is not None,
        queue_position=position,
    )


def sampling_request(
    *, project: Project, answers_per_prompt: int = 2, version: str = BASE_VERSION
) -> Sampling:
    """Asks for answers to every prompt; the work queue takes it from here."""
    return Sampling.objects.create(
        project=project,
        version=version,
        answers_per_prompt=answers_per_prompt,
        total=project.prompts.count() * answers_per_prompt,
    )


# -- votes


@dataclass(frozen=True)
class Ballot:
    """What one person says of one completion. None: as it was."""

    verdict: Verdict
    reasons: Sequence[str] | None = None
    comment: str | None = None

    def changes(self, project: Project) -> dict[str, object]:
        """The fields of a Vote that it sets. Raises BadRequest for what cannot be said."""
        changes: dict[str, object] = {
            "verdict": self.verdict,
            "guidelines_number": project.guidelines_number,
            # whoever says it again means it
            "set_aside_id": None,
        }
        if self.reasons is not None:
            allowed = {chip["key"] for chip in project.reasons.get(self.verdict, [])}
            unknown = sorted(set(self.reasons) - allowed)
            if unknown:
                raise BadRequest(f"Unknown reasons for {self.verdict}: {', '.join(unknown)}.")
            changes["reasons"] = list(dict.fromkeys(self.reasons))
        if self.comment is not None:
            if len(self.comment) > COMMENT_LIMIT:
                raise BadRequest(f"A comment has at most {COMMENT_LIMIT:,} characters.")
            changes["comment"] = self.comment
        return changes


def vote_cast(
    *,
    completion: Completion,
    verdict: Verdict,
    by: User,
    source: Source,
    reasons: Sequence[str] | None = None,
    comment: str | None = None,
) -> Vote:
    """One person's verdict. Casting again changes it; reasons and comment stay if not given.

    Raises BadRequest, or TooMany of a person who votes faster than the project takes it.
    """
    changes = Ballot(verdict, reasons, comment).changes(completion.project)
    if source == Source.IMPORT:
        changes["guidelines_number"] = 0  # given elsewhere, under other rules
    else:
        votes_limit(project=completion.project, by=by, completion=completion.pk)
    with transaction_in_turn():
        locked = completion_lock(completion.pk, by=by)
        vote, _ = vote_write(locked, by=by, source=source, changes=changes)
        vote_told(completion.project, vote)
        return vote


def vote_write(
    locked: Completion, *, by: User, source: Source, changes: dict[str, object]
) -> tuple[Vote, bool]:
    """Stores the vote on a completion that this transaction has locked; whether it is new."""
    fresh = Vote(completion=locked, user=by, project_id=locked.project_id, source=source)
    fresh.hasty = source == Source.ANNOTATE and is_hasty(locked)
    for field, value in changes.items():
        setattr(fresh, field, value)
    # nobody's vote stands: most likely this is the first, which the writing itself finds out
    if locked.vote_count == 0 and vote_first(
        completion=locked, vote=fresh, example=example_of(locked, [fresh.verdict])
    ):
        if locked.gold and source == Source.ANNOTATE:
            gold_answer_record(fresh)
        return fresh, True
    known = vote_of(by, completion=locked)
    first = known is None
    vote = known or fresh
    if known is not None:
        if known.verdict != changes["verdict"] and "reasons" not in changes:
            changes["reasons"] = []  # reasons belong to the verdict they were given with
        if all(getattr(known, field) == value for field, value in changes.items()):
            lease_release(completion=locked, by=by)
            return known, False  # the same again: a retry or a double click
    turned = first or vote.verdict != changes["verdict"] or vote.set_aside_id is not None
    for field, value in changes.items():
        setattr(vote, field, value)
    vote.save()
    if turned:
        VoteEvent.objects.create(
            completion=locked,
            user=by,
            verdict=vote.verdict,
            source=source,
            guidelines_number=vote.guidelines_number,
        )
        example_refresh(completion=locked)
        if first and locked.gold and source == Source.ANNOTATE:
            gold_answer_record(vote)
    # whoever holds an item has not passed it by
    if not lease_release(completion=locked, by=by):
        Skip.objects.filter(completion=locked, user=by).delete()
    return vote, first


def vote_undo(*, completion: Completion, by: User, source: Source) -> bool:
    """Takes the vote or skip back and puts the item on the person's screen again."""
    with transaction_in_turn():
        locked = completion_lock(completion.pk, by=by)
        undone, _ = Vote.objects.filter(completion=locked, user=by).delete()
        if undone:
            VoteEvent.objects.create(completion=locked, user=by, verdict="", source=source)
            example_refresh(completion=locked)
            tally_forget(project=completion.project, user=by)
        skipped = Skip.objects.filter(completion=locked, user=by).first()
        if skipped is not None:
            if skipped.flag:
                locked.flagged = False
                locked.save(update_fields=["flagged"])
            skipped.delete()
        # after a skip somebody else may have it by now
        if locked.gold or slot_free(completion=locked, by=by):
            lease_take(completion=locked, by=by, front=True)
    if undone:
        undo_note(project=completion.project, by=by)
    return bool(undone) or skipped is not None


def example_refresh(*, completion: Completion) -> Example | None:
    """Makes the Example what the votes say now. Call it in the vote's transaction."""
    votes = Vote.objects.standing().filter(completion=completion)
    verdicts = list(votes.values_list("verdict", flat=True))
    completion.vote_count = len(verdicts)
    completion.contested = len(set(verdicts)) > 1
    completion.save(update_fields=["vote_count", "contested"])
    example = example_of(completion, verdicts)
    if example is None:
        Example.objects.filter(completion=completion).delete()
        return None
    # one statement: the row is locked, and there may be one already
    [example] = Example.objects.bulk_create(
        [example],
        update_conflicts=True,
        unique_fields=["completion"],
        update_fields=["desirable", "weight", "split", "updated_at"],
    )
    return example
