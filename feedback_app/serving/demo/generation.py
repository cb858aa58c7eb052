"""One answer of the engine on its way to a reader, whatever it is an answer to."""

import time
from collections.abc import Callable, Iterator

from feedback_app.accounts.models import User
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

SAID_NOTHING = "The model ended its answer before the first word: try again or ask in other words."
ACCOUNT_SECONDS = 1.0  # how often a stream looks whether its reader may still read


def answer_stream(
    *,
    project: Project,
    messages: list[Message],
    version: str,
    may_read: Callable[[], bool],
    store: Callable[[Streamed], object],
    fail: Callable[[str], object],
    opened: Callable[[], object] = lambda: None,
    otherwise: Callable[[AdapterBroken], str] | None = None,
) -> Iterator[str]:
    """Yields the answer's text as the engine writes it and hands what came to `store`. `opened` is
    called while the engine reads the question.

    If the version cannot be loaded, the one that `otherwise` names answers in its place; `store`
    reads it from what it is handed.

    If the reader goes away (the iterator is closed) or may read no longer, what came so far is
    stored as aborted. An answer of no words is none: `fail` is told so. Raises EngineError,
    after telling `fail` the reason.
    """
    streamed = Streamed()
    try:
        looked = time.monotonic()
        for piece in pieces_of(
            lambda instead: Engine(project).stream(
                messages,
                version=instead,
                sampling=demo_sampling(project),
                into=streamed,
                opened=opened,
            ),
            version=version,
            otherwise=otherwise,
        ):
            yield piece
            if time.monotonic() - looked > ACCOUNT_SECONDS:
                looked = time.monotonic()
                if not may_read():
                    streamed.finish_reason = "aborted"
                    return
        if not streamed.text:
            fail(SAID_NOTHING)
    except EngineError as error:
        fail(str(error))
        raise
    finally:
        if streamed.text:
            store(streamed)


def active_member(user_id: int, project: Project) -> Callable[[], bool]:
    """Whether a person is still let into the project, asked anew at every call."""
    reader = User.objects.filter(pk=user_id, is_active=True)
    return reader.filter(memberships__project=project).exists


def pieces_of(
    ask: Callable[[str], Iterator[str]],
    *,
    version: str,
    otherwise: Callable[[AdapterBroken], str] | None,
) -> Iterator[str]:
    """The pieces of `version`, or of the one that `otherwise` puts in the place of a broken one."""
    try:
        yield from ask(version)
    except AdapterBroken as error:
        if otherwise is None:
            raise
        yield from ask(otherwise(error))


def streamed_store(*, project: Project, messages: list[Message], streamed: Streamed) -> Completion:
    """Keeps an answer with the ids that were read and written, so that it can be voted on."""
    return completion_create(
        project=project,
        prompt=prompt_get_or_create(project=project, messages=messages, source=Source.DEMO),
        answer=Answer(
            text=streamed.text,
            version=streamed.version,
            finish_reason=streamed.finish_reason,
            prompt_token_ids=streamed.prompt_token_ids,
            # ids of a broken stream may lag behind its text
            token_ids=streamed.token_ids if streamed.finish_reason != "aborted" else None,
        ),
        source=Source.DEMO,
    )


def demo_sampling(project: Project) -> Sampling:
    """The demo may write longer than the annotation queue's answers."""
    return Sampling(
        max_tokens=max(project.max_tokens, 256),
        temperature=project.temperature,
        top_p=project.top_p,
    )
