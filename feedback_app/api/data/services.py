"""Services of the data API. Call each in a transaction: a request is all or nothing."""

import re
from collections.abc import Sequence, Set

from feedback_app.accounts.models import ApiToken
from feedback_app.api.data.schemas import CompletionNew, Message, PromptNew, VoteNew
from feedback_app.api.errors import ApiError
from feedback_app.api.gateway.schemas import Tool
from feedback_app.feedback.models import (
    BASE_VERSION,
    EDITED_VERSION,
    IMPORTED_VERSION,
    Completion,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.prompts.completions import (
    Answer,
    completion_create,
    completion_hash,
    completion_queue,
)
from feedback_app.feedback.prompts.selectors import distinct_values
from feedback_app.feedback.prompts.services import Message as PromptMessage
from feedback_app.feedback.prompts.services import content_hash, prompt_get_or_create
from feedback_app.feedback.prompts.tools import tools_text, with_tools
from feedback_app.feedback.tokens.services import voter_of
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.models import Conversation

#: Names that mean something else, in any case; a version of a project has an '@'.
RESERVED = {BASE_VERSION, IMPORTED_VERSION, EDITED_VERSION, Conversation.LIVE}
#: What another system may be called.
FOREIGN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]*")
#: Versions with answers; lists offer fifty.
VERSIONS_MOST = 40


def unknown(param: str, what: str) -> ApiError:
    return ApiError(404, f"This project has no {what}.", "not_found", param=param)


def plain(messages: Sequence[Message], tools: Sequence[Tool]) -> list[PromptMessage]:
    """Return a conversation as prompts keep it. Raises UserError."""
    definitions = [tool.model_dump(exclude_none=True) for tool in tools]
    return with_tools([message.as_stored() for message in messages], tools_text(definitions))


def project_lock(project: Project) -> None:
    """Lock additions to the project through this API until the transaction ends.

    An item that two requests send at once is stored once. Votes do not wait for the lock.
    """
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def prompts_add(project: Project, asked: Sequence[PromptNew]) -> list[tuple[Prompt, bool]]:
    """Return each prompt, and whether it is new."""
    project_lock(project)
    digests = [content_hash(plain(item.messages, item.tools)) for item in asked]
    there = project.prompts.filter(content_hash__in=digests)
    known = set(there.values_list("content_hash", flat=True))
    added = []
    for item, digest in zip(asked, digests, strict=True):
        # Source.IMPORT: versions are sampled on it, which the gateway's prompts must not be
        prompt = prompt_get_or_create(
            project=project,
            messages=plain(item.messages, item.tools),
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
    labels = set(distinct_values(project=project, field="version"))
    added = []
    for index, item in enumerate(asked):
        where = f"completions[{index}]"
        if item.version not in known:
            foreign_version_check(item.version, labels, f"{where}.version")
            labels.add(item.version)
        prompt = prompt_of(project, item, where)
        added.append(completion_add(project, prompt, item))
    return added


def foreign_version_check(version: str, labels: Set[str], where: str) -> None:
    """Raise ApiError unless another system may be called so; `labels` are the versions that have
    answers already."""
    if "@" in version or version.casefold() in RESERVED:
        raise unknown(where, f"version {version!r}")
    if not FOREIGN.fullmatch(version):
        raise ApiError(
            400,
            f"{where}: call another system by letters, digits, blanks and . _ : / + - only.",
            "invalid_value",
            param=where,
        )
    if version not in labels and len(labels) >= VERSIONS_MOST:
        raise ApiError(
            400,
            f"{where}: this project has answers of {VERSIONS_MOST} versions already. Use a name "
            "that it knows.",
            "too_many_versions",
            param=where,
        )


def prompt_of(project: Project, item: CompletionNew, where: str) -> Prompt:
    """Return the prompt of an answer. Raises ApiError."""
    if (item.prompt_id is None) == (item.messages is None):
        raise ApiError(400, f"{where}: send prompt_id or messages.", "invalid_value", param=where)
    if item.tools and item.messages is None:
        raise ApiError(
            400,
            f"{where}: tools belong to messages; the prompt has its own.",
            "invalid_value",
            param=f"{where}.tools",
        )
    if item.messages is not None:
        return prompt_get_or_create(
            project=project, messages=plain(item.messages, item.tools), source=Source.API
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
        completion_queue(completion)
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
