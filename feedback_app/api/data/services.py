"""Services of the data API. Call each in a transaction: a request is all or nothing."""

from collections.abc import Sequence

from django.db.models import Max

from feedback_app.accounts.models import ApiToken
from feedback_app.api.data.schemas import CompletionNew, Message, PromptNew, VoteNew
from feedback_app.api.errors import ApiError
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


def unknown(param: str, what: str) -> ApiError:
    return ApiError(404, f"This project has no {what}.", "not_found", param=param)


def plain(messages: Sequence[Message]) -> list[PromptMessage]:
    return [{"role": message.role, "content": message.content} for message in messages]


def project_lock(project: Project) -> None:
    """Lock additions to the project through this API until the transaction ends.

    An item that two requests send at once is stored once. Votes do not wait for the lock.
    """
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def prompts_add(project: Project, asked: Sequence[PromptNew]) -> list[tuple[Prompt, bool]]:
    """Return each prompt, and whether it is new."""
    project_lock(project)
    digests = [content_hash(plain(item.messages)) for item in asked]
    there = project.prompts.filter(content_hash__in=digests)
    known = set(there.values_list("content_hash", flat=True))
    added = []
    for item, digest in zip(asked, digests, strict=True):
        # Source.IMPORT: versions are sampled on it, which the gateway's prompts must not be
        prompt = prompt_get_or_create(
            project=project,
            messages=plain(item.messages),
            source=Source.IMPORT,
            topic=item.topic,
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
    """Return each completion, and whether it is new. Raises ApiError.

    The same answer of the same version to the same prompt is stored once.
    """
    project_lock(project)
    known = {BASE_VERSION, IMPORTED_VERSION}
    known |= set(project.adapters.values_list("name", flat=True))
    added = []
    for index, item in enumerate(asked):
        where = f"completions[{index}]"
        if item.version not in known:
            raise unknown(f"{where}.version", f"version {item.version!r}")
        prompt = prompt_of(project, item, where)
        added.append(completion_add(project, prompt, item))
    return added


def prompt_of(project: Project, item: CompletionNew, where: str) -> Prompt:
    """Return the prompt of an answer. Raises ApiError."""
    if (item.prompt_id is None) == (item.messages is None):
        raise ApiError(400, f"{where}: send prompt_id or messages.", "invalid_value", param=where)
    if item.messages is not None:
        return prompt_get_or_create(
            project=project, messages=plain(item.messages), source=Source.API
        )
    prompt = project.prompts.filter(pk=item.prompt_id or 0).first()
    if prompt is None:
        raise unknown(f"{where}.prompt_id", f"prompt {item.prompt_id}")
    return prompt


def completion_add(
    project: Project, prompt: Prompt, item: CompletionNew
) -> tuple[Completion, bool]:
    digest = completion_hash(
        prompt_hash=prompt.content_hash, system_prompt=project.system_prompt, text=item.text
    )
    there = project.completions.filter(content_hash=digest, prompt=prompt, version=item.version)
    completion = there.defer("token_ids", "prompt_token_ids").first()
    created = completion is None
    if completion is None:
        completion = completion_create(
            project=project,
            prompt=prompt,
            answer=Answer(
                text=item.text,
                version=item.version,
                finish_reason=Completion.Finish.STOP,
                prompt_token_ids=None,
                token_ids=None,
            ),
            source=Source.API,
        )
    if item.queued and not completion.queued:
        last = prompt.completions.filter(queued=True).aggregate(last=Max("queue_position"))["last"]
        completion.queued = True
        completion.queue_position = 0 if last is None else last + 1
        completion.save(update_fields=["queued", "queue_position"])
    return completion, created


def votes_cast(token: ApiToken, asked: Sequence[VoteNew]) -> list[Vote]:
    """Cast the votes and return them as stored.

    Raises ApiError for an unknown completion, UserError for unknown reasons.
    """
    completions = token.project.completions.select_related("project", "prompt").defer(
        "token_ids", "prompt_token_ids"
    )
    found = completions.in_bulk({item.completion_id for item in asked})
    for index, item in enumerate(asked):
        if item.completion_id not in found:
            raise unknown(f"votes[{index}].completion_id", f"completion {item.completion_id}")
    votes: dict[int, Vote] = {}
    # in the order of their rows, so that two concurrent requests cannot deadlock
    for index in sorted(range(len(asked)), key=lambda index: asked[index].completion_id):
        item = asked[index]
        votes[index] = vote_cast(
            completion=found[item.completion_id],
            verdict=Verdict(item.verdict),
            by=voter_of(token=token, name=item.user),
            source=Source.API,
            reasons=item.reasons,
            comment=item.comment,
        )
    return [votes[index] for index in range(len(asked))]
