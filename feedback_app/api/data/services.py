"""What the data API adds. Call each in a transaction: a request is done whole or not at all."""

from collections.abc import Sequence

from django.db.models import Max

from feedback_app.accounts.models import ApiToken
from feedback_app.api.data.schemas import CompletionNew, Message, PromptNew, VoteNew
from feedback_app.api.errors import ApiFault
from feedback_app.feedback.models import (
    BASE_VERSION,
    IMPORTED_VERSION,
    Completion,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.prompts.completions import Answer, completion_create, completion_hash
from feedback_app.feedback.prompts.services import Message as PromptMessage
from feedback_app.feedback.prompts.services import content_hash, prompt_get_or_create
from feedback_app.feedback.tokens.services import voter_of
from feedback_app.feedback.votes.services import vote_cast


def unknown(param: str, what: str) -> ApiFault:
    return ApiFault(404, f"This project has no {what}.", "not_found", param=param)


def plain(messages: Sequence[Message]) -> list[PromptMessage]:
    return [{"role": message.role, "content": message.content} for message in messages]


def one_at_a_time(project: Project) -> None:
    """Until the transaction ends nobody else adds to the project by this API, so that what two
    requests both bring is stored once. Votes do not wait for it."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def prompts_add(project: Project, asked: Sequence[PromptNew]) -> list[tuple[Prompt, bool]]:
    """Each prompt, and whether it is new."""
    one_at_a_time(project)
    digests = [content_hash(plain(one.messages)) for one in asked]
    there = project.prompts.filter(content_hash__in=digests)
    known = set(there.values_list("content_hash", flat=True))
    added = []
    for one, digest in zip(asked, digests, strict=True):
        # Source.IMPORT: versions are sampled on it, which the gateway's prompts must not be
        prompt = prompt_get_or_create(
            project=project,
            messages=plain(one.messages),
            source=Source.IMPORT,
            topic=one.topic,
        )
        if prompt.source == Source.API:
            prompt.source = Source.IMPORT
            prompt.save(update_fields=["source"])
        added.append((prompt, digest not in known))
        known.add(digest)
    return added


def completions_add(
    project: Project, asked: Sequence[CompletionNew]
) -> list[tuple[Completion, bool]]:
    """Each completion, and whether it is new: the same answer of the same version to the same
    prompt is stored once. Raises ApiFault."""
    one_at_a_time(project)
    known = {BASE_VERSION, IMPORTED_VERSION}
    known |= set(project.adapters.values_list("name", flat=True))
    added = []
    for index, one in enumerate(asked):
        where = f"completions[{index}]"
        if one.version not in known:
            raise unknown(f"{where}.version", f"version {one.version!r}")
        prompt = prompt_of(project, one, where)
        added.append(completion_add(project, prompt, one))
    return added


def prompt_of(project: Project, one: CompletionNew, where: str) -> Prompt:
    """The prompt that an answer belongs to. Raises ApiFault."""
    if (one.prompt_id is None) == (one.messages is None):
        raise ApiFault(400, f"{where}: send prompt_id or messages.", "invalid_value", param=where)
    if one.messages is not None:
        return prompt_get_or_create(
            project=project, messages=plain(one.messages), source=Source.API
        )
    prompt = project.prompts.filter(pk=one.prompt_id or 0).first()
    if prompt is None:
        raise unknown(f"{where}.prompt_id", f"prompt {one.prompt_id}")
    return prompt


def completion_add(project: Project, prompt: Prompt, one: CompletionNew) -> tuple[Completion, bool]:
    digest = completion_hash(
        prompt_hash=prompt.content_hash, system_prompt=project.system_prompt, text=one.text
    )
    there = project.completions.filter(content_hash=digest, prompt=prompt, version=one.version)
    completion = there.defer("token_ids", "prompt_token_ids").first()
    created = completion is None
    if completion is None:
        completion = completion_create(
            project=project,
            prompt=prompt,
            answer=Answer(
                text=one.text,
                version=one.version,
                finish_reason=Completion.Finish.STOP,
                prompt_token_ids=None,
                token_ids=None,
            ),
            source=Source.API,
        )
    if one.queued and not completion.queued:
        last = prompt.completions.filter(queued=True).aggregate(last=Max("queue_position"))["last"]
        completion.queued = True
        completion.queue_position = 0 if last is None else last + 1
        completion.save(update_fields=["queued", "queue_position"])
    return completion, created


def votes_cast(token: ApiToken, asked: Sequence[VoteNew]) -> list[Vote]:
    """Each vote as it stands. Raises ApiFault for an unknown completion, UserError for reasons
    that the project does not have."""
    completions = token.project.completions.select_related("project", "prompt").defer(
        "token_ids", "prompt_token_ids"
    )
    found = completions.in_bulk({one.completion_id for one in asked})
    for index, one in enumerate(asked):
        if one.completion_id not in found:
            raise unknown(f"votes[{index}].completion_id", f"completion {one.completion_id}")
    votes: dict[int, Vote] = {}
    # in the order of their rows, so that two requests at once do not wait for each other
    for index in sorted(range(len(asked)), key=lambda index: asked[index].completion_id):
        one = asked[index]
        votes[index] = vote_cast(
            completion=found[one.completion_id],
            verdict=Verdict(one.verdict),
            by=voter_of(token=token, name=one.user),
            source=Source.API,
            reasons=one.reasons,
            comment=one.comment,
        )
    return [votes[index] for index in range(len(asked))]
