"""Asks a version on behalf of a token, and keeps what it answers."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from django.db import transaction

from feedback_app.accounts.models import ApiToken
from feedback_app.api.errors import ApiFault
from feedback_app.api.gateway.schemas import ChatAsk
from feedback_app.feedback.examples.services import example_refresh
from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create, storable
from feedback_app.feedback.prompts.services import Message, messages_check, prompt_get_or_create
from feedback_app.serving.demo.generation import demo_sampling, pieces_of
from feedback_app.serving.engine.client import AdapterBroken, Engine, Sampling, Streamed
from feedback_app.serving.models import Assignment, Conversation
from feedback_app.serving.releases.fallback import version_fallback
from feedback_app.serving.traffic_splits.assignments import (
    assignment_get_or_draw,
    request_key,
    timed,
)

LIVE = Conversation.LIVE
TOKEN_SECONDS = 1.0  # how often a stream looks whether its token still holds


@dataclass(frozen=True)
class Question:
    """What a version is asked: the conversation, and what stands in for the system prompt."""

    token: ApiToken
    version: str
    messages: list[Message]
    system_prompt: str | None
    sampling: Sampling
    # whether it asked for `live`, and its side where traffic is split
    live: bool = False
    assignment: Assignment | None = None

    @property
    def project(self) -> Project:
        return self.token.project


@dataclass
class Reply(Streamed):
    """The answer as it comes in. `completion` is there before the first piece."""

    completion: Completion | None = field(default=None)


def question_of(ask: ChatAsk, *, token: ApiToken) -> Question:
    """Reads a valid body. Raises ApiFault 404 for a version that the project does not have, and
    UserError for a conversation that is no prompt."""
    messages: list[Message] = [
        {"role": message.role, "content": message.content} for message in ask.messages
    ]
    system_prompt = None
    if messages[0]["role"] in ("system", "developer"):
        system_prompt = messages.pop(0)["content"]
    messages_check(messages)
    usual = demo_sampling(token.project)
    assignment = assignment_of(ask, messages, project=token.project)
    return Question(
        token=token,
        version=assignment.version if assignment else version_of(ask.model, project=token.project),
        live=ask.model == LIVE,
        assignment=assignment,
        messages=messages,
        system_prompt=system_prompt,
        sampling=Sampling(
            max_tokens=ask.max_completion_tokens or ask.max_tokens or usual.max_tokens,
            temperature=usual.temperature if ask.temperature is None else ask.temperature,
            top_p=usual.top_p if ask.top_p is None else ask.top_p,
            seed=ask.seed,
        ),
    )


def assignment_of(ask: ChatAsk, messages: list[Message], *, project: Project) -> Assignment | None:
    """The side of a running split that this request is on, if it asks for `live`."""
    if ask.model != LIVE:
        return None
    key = request_key(project, user=ask.user, messages=messages)
    return assignment_get_or_draw(project, key, begins=len(messages) == 1)


def version_of(model: str, *, project: Project) -> str:
    """The version that a request means. Raises ApiFault 404."""
    if model == LIVE:
        return project.live_version
    if model == BASE_VERSION or project.adapters.usable().filter(name=model).exists():
        return model
    raise ApiFault(
        404,
        f"This project has no model '{model}'. GET /v1/models lists what it has.",
        "model_not_found",
        param="model",
    )


def answer_stream(question: Question, *, into: Reply) -> Iterator[str]:
    """`answer_pieces`, and how they came where traffic is split. Raises EngineError."""
    pieces = answer_pieces(question, into=into)
    return timed(pieces, assignment=question.assignment, completion=lambda: into.completion)


def answer_pieces(question: Question, *, into: Reply) -> Iterator[str]:
    """Yields the answer's text as the engine writes it.

    The completion is stored while the engine reads the question, so that every piece can name it,
    and completed when the iterator ends. If the reader goes away (the iterator is closed), the
    token is revoked or the engine fails, what came so far stays, marked as aborted; if nothing
    came, nothing stays. Raises EngineError.
    """
    project = question.project

    def begin() -> None:
        into.completion = answer_begin(question, version=into.version)

    def ask(version: str) -> Iterator[str]:
        return Engine(project).stream(
            question.messages,
            version=version,
            sampling=question.sampling,
            system_prompt=question.system_prompt,
            into=into,
            opened=begin,
        )

    def fall_back(error: AdapterBroken) -> str:
        return version_fallback(project, version=question.version, error=error)

    pieces = pieces_of(
        ask, version=question.version, otherwise=fall_back if question.live else None
    )
    looked = time.monotonic()
    try:
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                yield piece
                if time.monotonic() - looked > TOKEN_SECONDS:
                    looked = time.monotonic()
                    if not ApiToken.objects.valid().filter(pk=question.token.pk).exists():
                        into.finish_reason = "aborted"
                        return
    finally:
        if into.completion is not None:
            answer_finish(into.completion, reply=into)


def answer_begin(question: Question, *, version: str) -> Completion:
    """An empty completion, aborted unless it is finished."""
    with transaction.atomic():
        return completion_create(
            project=question.project,
            prompt=prompt_get_or_create(
                project=question.project, messages=question.messages, source=Source.API
            ),
            answer=Answer(
                text="",
                version=version,
                finish_reason=Completion.Finish.ABORTED,
                prompt_token_ids=None,
                token_ids=None,
            ),
            source=Source.API,
            system_prompt=question.system_prompt,
        )


def answer_finish(completion: Completion, *, reply: Reply) -> None:
    """Keeps the text and the ids that were read and written. Votes may have come already.

    What broke off before its first piece was never told of, and goes.
    """
    aborted = reply.finish_reason == Completion.Finish.ABORTED
    if aborted and not reply.text:
        completion.delete()
        reply.completion = None
        return
    completion.text = storable(reply.text)
    completion.finish_reason = reply.finish_reason
    completion.prompt_token_ids = reply.prompt_token_ids
    # ids of a broken stream may lag behind its text
    completion.token_ids = None if aborted else reply.token_ids
    with transaction.atomic():
        locked = Completion.objects.select_for_update().filter(pk=completion.pk).first()
        if locked is None:
            return  # erased meanwhile
        completion.save(update_fields=["text", "finish_reason", "prompt_token_ids", "token_ids"])
        if locked.vote_count:
            example_refresh(completion=completion)
