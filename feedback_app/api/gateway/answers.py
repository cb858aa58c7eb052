"""Chat completions of the gateway: read the request, generate and store the answer."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from feedback_app.accounts.models import ApiToken
from feedback_app.api.errors import ApiError
from feedback_app.api.gateway.schemas import MAX_GROUP, ChatAsk
from feedback_app.feedback.examples.services import example_refresh
from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create, storable
from feedback_app.feedback.prompts.services import Message, messages_check, prompt_get_or_create
from feedback_app.feedback.prompts.tools import tools_text, with_tools
from feedback_app.feedback.tokens.services import voter_of
from feedback_app.serving.conversation_log.recording import (
    gateway_turn_record,
    gateway_turn_remove,
)
from feedback_app.serving.demo.generation import demo_sampling, pieces_of
from feedback_app.serving.engine.client import AdapterBroken, Engine, Sampling, Streamed
from feedback_app.serving.follow_ups.gateway import answer_stopped, gateway_followed
from feedback_app.serving.models import Assignment, Conversation
from feedback_app.serving.releases.fallback import version_fallback
from feedback_app.serving.traffic_splits.assignments import (
    assignment_get_or_draw,
    request_key,
    timed,
)

LIVE = Conversation.LIVE
TOKEN_CHECK_SECONDS = 1.0  # time between two checks that a stream's token is still valid


@dataclass(frozen=True)
class ChatRequest:
    """A request to a version; `system_prompt` replaces the project's unless it is None."""

    token: ApiToken
    version: str
    messages: list[Message]
    system_prompt: str | None
    sampling: Sampling
    # the product's id of its user
    user: str | None = None
    user_group: str = ""
    # the product's own id of the answer's message
    message_id: str = ""
    # whether `live` was requested, and the assignment where traffic is split
    live: bool = False
    assignment: Assignment | None = None

    @property
    def project(self) -> Project:
        return self.token.project


@dataclass
class Reply(Streamed):
    """The answer in progress. `completion` is set before the first piece."""

    completion: Completion | None = field(default=None)


def chat_request_of(ask: ChatAsk, *, token: ApiToken) -> ChatRequest:
    """Return the request of a valid body.

    Raises ApiError 404 for an unknown version and 400 for a format that the engine does not know,
    and UserError for an invalid conversation.
    """
    sampling = sampling_of(ask, token.project)
    messages = [message.as_stored() for message in ask.messages]
    system_prompt = None
    if messages[0]["role"] in ("system", "developer"):
        system_prompt = messages.pop(0)["content"]
    messages = with_tools(messages, tools_text(ask.definitions))
    messages_check(messages)
    assignment = assignment_of(ask, messages, project=token.project)
    return ChatRequest(
        token=token,
        version=assignment.version if assignment else version_of(ask.model, project=token.project),
        live=ask.model == LIVE,
        user=ask.user or None,
        assignment=assignment,
        messages=messages,
        system_prompt=system_prompt,
        message_id=ask.message_id,
        user_group=ask.user_group or token.name[:MAX_GROUP],
        sampling=sampling,
    )


def format_of(ask: ChatAsk, project: Project) -> str:
    """Return the format that an engine is sent, as JSON; empty for text. Raises ApiError where the
    project's engine keeps to no format."""
    asked = ask.response_format
    if asked is None or asked.type == "text":
        return ""
    if project.base_model not in settings.ENGINE_JSON:
        raise ApiError(
            400,
            f"The engine of {project.base_model} keeps to no format: ask for JSON in the prompt, "
            "and check it. If it is a server that does, whoever runs this installation can name "
            "the base model in ENGINE_JSON.",
            "format_not_supported",
            param="response_format",
        )
    return asked.as_sent()


def sampling_of(ask: ChatAsk, project: Project) -> Sampling:
    """Return how to sample: as requested, else as the project's demo does. Raises ApiError for a
    format that the engine does not know."""
    usual = demo_sampling(project)
    return Sampling(
        max_tokens=ask.max_completion_tokens or ask.max_tokens or usual.max_tokens,
        temperature=usual.temperature if ask.temperature is None else ask.temperature,
        top_p=usual.top_p if ask.top_p is None else ask.top_p,
        seed=ask.seed,
        stop=(ask.stop,) if isinstance(ask.stop, str) else tuple(ask.stop or ()),
        presence_penalty=ask.presence_penalty or 0,
        frequency_penalty=ask.frequency_penalty or 0,
        logprobs=(ask.top_logprobs or 0) if ask.logprobs else None,
        response_format=format_of(ask, project),
    )


def assignment_of(ask: ChatAsk, messages: list[Message], *, project: Project) -> Assignment | None:
    """Return the assignment in a running split of a request for `live`, or None."""
    if ask.model != LIVE:
        return None
    key = request_key(project, user=ask.user, messages=messages)
    return assignment_get_or_draw(project, key, begins=len(messages) == 1)


def version_of(model: str, *, project: Project) -> str:
    """Return the version of a model name. Raises ApiError 404."""
    if model == LIVE:
        return project.live_version
    if model == BASE_VERSION or project.adapters.usable().filter(name=model).exists():
        return model
    raise ApiError(
        404,
        f"This project has no model '{model}'. GET /v1/models lists what it has.",
        "model_not_found",
        param="model",
    )


def answer_stream(chat: ChatRequest, *, into: Reply) -> Iterator[str]:
    """Yield `answer_pieces`, timed where traffic is split. Raises EngineError."""
    pieces = answer_pieces(chat, into=into)
    return timed(pieces, assignment=chat.assignment, completion=lambda: into.completion)


def answer_pieces(chat: ChatRequest, *, into: Reply) -> Iterator[str]:
    """Yield the answer's text as the engine generates it.

    The completion is stored while the engine reads the prompt, so that every piece can name it,
    and completed when the iterator ends. If the reader disconnects (the iterator is closed), the
    token is revoked or the engine fails, the partial answer is kept as aborted; an empty one is
    deleted. Raises EngineError.
    """
    project = chat.project

    def begin() -> None:
        into.completion = answer_begin(chat, version=into.version)

    def ask(version: str) -> Iterator[str]:
        return Engine(project).stream(
            chat.messages,
            version=version,
            sampling=chat.sampling,
            system_prompt=chat.system_prompt,
            into=into,
            opened=begin,
        )

    def fall_back(error: AdapterBroken) -> str:
        return version_fallback(project, version=chat.version, error=error)

    pieces = pieces_of(ask, version=chat.version, fallback=fall_back if chat.live else None)
    checked_at = time.monotonic()
    stopped = False
    try:
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                yield piece
                if time.monotonic() - checked_at > TOKEN_CHECK_SECONDS:
                    checked_at = time.monotonic()
                    if not ApiToken.objects.valid().filter(pk=chat.token.pk).exists():
                        into.finish_reason = "aborted"
                        return
    except GeneratorExit:
        stopped = True
        raise
    finally:
        if stopped and into.completion is not None and into.text:
            answer_stopped(into.completion)
        if into.completion is not None:
            # with stop texts the ids go on to the one that ended the answer
            answer_finish(into.completion, reply=into, with_ids=not chat.sampling.stop)


def answer_begin(chat: ChatRequest, *, version: str) -> Completion:
    """Store an empty completion, marked as aborted until it is finished, and its turn."""
    with transaction.atomic():
        completion = completion_create(
            project=chat.project,
            prompt=prompt_get_or_create(
                project=chat.project, messages=chat.messages, source=Source.API
            ),
            answer=Answer(
                text="",
                version=version,
                finish_reason=Completion.Finish.ABORTED,
                prompt_token_ids=None,
                token_ids=None,
            ),
            source=Source.API,
            system_prompt=chat.system_prompt,
            user_group=chat.user_group,
            message_id=chat.message_id,
        )
        turn = gateway_turn_record(
            project=chat.project,
            user=voter_of(token=chat.token, name=chat.user),
            messages=chat.messages,
            completion=completion,
            choice=LIVE if chat.live else chat.version,
        )
        gateway_followed(turn)
        return completion


def answer_finish(completion: Completion, *, reply: Reply, with_ids: bool = True) -> None:
    """Store the text of an answer, and its token ids if they spell it; it may have votes already.

    An answer that was aborted before its first piece is deleted: no client knows of it.
    """
    aborted = reply.finish_reason == Completion.Finish.ABORTED
    if aborted and not reply.text:
        with transaction.atomic():
            gateway_turn_remove(completion)
            completion.delete()
        reply.completion = None
        return
    completion.text = storable(reply.text)
    completion.finish_reason = reply.finish_reason
    completion.prompt_token_ids = reply.prompt_token_ids
    # the ids of an aborted stream may lag behind its text
    completion.token_ids = reply.token_ids if with_ids and not aborted else None
    with transaction.atomic():
        locked = Completion.objects.select_for_update().filter(pk=completion.pk).first()
        if locked is None:
            return  # erased meanwhile
        completion.save(update_fields=["text", "finish_reason", "prompt_token_ids", "token_ids"])
        if locked.vote_count:
            example_refresh(completion=completion)
