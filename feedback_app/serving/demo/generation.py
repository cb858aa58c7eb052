"""Streaming of one answer from the engine to a reader, and its storage."""

import time
from collections.abc import Callable, Iterator

from feedback_app.accounts.models import Membership, User
from feedback_app.feedback.models import Completion, Project, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import Message, prompt_get_or_create
from feedback_app.serving.engine.client import (
    AdapterBroken,
    Engine,
    EngineError,
    Sampling,
    Streamed,
)
from feedback_app.serving.models import ShareVisitor

#: In front of the link's id in the user group of a share link's visitor.
LINK_GROUP = "link "
EMPTY_ANSWER = "The model returned an empty answer: try again or rephrase your message."
ACCESS_CHECK_SECONDS = 1.0  # time between two checks that the reader still has access


def answer_stream(
    *,
    project: Project,
    messages: list[Message],
    version: str,
    may_read: Callable[[], bool],
    store: Callable[[Streamed], object],
    fail: Callable[[str], object],
    opened: Callable[[], object] = lambda: None,
    fallback: Callable[[AdapterBroken], str] | None = None,
    sampling: Sampling | None = None,
    system_prompt: str | None = None,
) -> Iterator[str]:
    """Yield the answer's text as the engine generates it, then call `store` with the result.

    `opened` is called while the engine reads the prompt. If the version cannot be loaded, the
    version that `fallback` returns answers instead, and `Streamed.version` names it.
    `sampling` and `system_prompt` replace the project's.

    If the reader disconnects (the iterator is closed) or loses access, the partial answer is
    stored as aborted. For an empty answer `fail` is called with a message. Raises EngineError,
    after calling `fail` with the reason.
    """
    streamed = Streamed()
    try:
        checked_at = time.monotonic()
        for piece in pieces_of(
            lambda answering: Engine(project).stream(
                messages,
                version=answering,
                sampling=sampling or demo_sampling(project),
                system_prompt=system_prompt,
                into=streamed,
                opened=opened,
            ),
            version=version,
            fallback=fallback,
        ):
            yield piece
            if time.monotonic() - checked_at > ACCESS_CHECK_SECONDS:
                checked_at = time.monotonic()
                if not may_read():
                    streamed.finish_reason = "aborted"
                    return
        if not streamed.text:
            fail(EMPTY_ANSWER)
    except EngineError as error:
        fail(str(error))
        raise
    finally:
        if streamed.text:
            store(streamed)


def member_is_active(user_id: int, project: Project) -> Callable[[], bool]:
    """Return a function that reads whether a person still has access to the project."""
    reader = User.objects.filter(pk=user_id, is_active=True)
    return reader.filter(memberships__project=project).exists


def pieces_of(
    ask: Callable[[str], Iterator[str]],
    *,
    version: str,
    fallback: Callable[[AdapterBroken], str] | None,
) -> Iterator[str]:
    """Yield the pieces of `version`, or of the version that `fallback` returns if it is broken."""
    try:
        yield from ask(version)
    except AdapterBroken as error:
        if fallback is None:
            raise
        yield from ask(fallback(error))


def user_group_of(*, project: Project, user_id: int) -> str:
    """Return a reader's user group: their role, or the share link that they use."""
    members = Membership.objects.filter(project=project, user=user_id)
    role = members.values_list("role", flat=True).first()
    if role is not None:
        return role
    visitors = ShareVisitor.objects.filter(user=user_id)
    link = visitors.values_list("link", flat=True).first()
    return "" if link is None else f"{LINK_GROUP}{link}"


def streamed_store(
    *,
    project: Project,
    messages: list[Message],
    streamed: Streamed,
    reader: int,
    system_prompt: str | None = None,
) -> Completion:
    """Store an answer with its prompt and completion token ids, so that it can be voted on.

    `reader` is the id of the user whom it answers.
    """
    return completion_create(
        project=project,
        prompt=prompt_get_or_create(project=project, messages=messages, source=Source.DEMO),
        answer=Answer(
            text=streamed.text,
            version=streamed.version,
            finish_reason=streamed.finish_reason,
            prompt_token_ids=streamed.prompt_token_ids,
            # the ids of an aborted stream may lag behind its text
            token_ids=streamed.token_ids if streamed.finish_reason != "aborted" else None,
        ),
        source=Source.DEMO,
        system_prompt=system_prompt,
        user_group=user_group_of(project=project, user_id=reader),
    )


def demo_sampling(project: Project) -> Sampling:
    """Return the project's sampling, for the demo and as the default of the gateway."""
    return Sampling(
        max_tokens=project.max_tokens,
        temperature=project.temperature,
        top_p=project.top_p,
    )
