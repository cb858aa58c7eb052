"""The gateway's operations: `/v1/models`, `/v1/chat/completions`, `/v1/feedback`."""

from typing import Any

from django.http import JsonResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver
from ninja import NinjaAPI

from feedback_app.accounts.models import ApiToken, Scope
from feedback_app.api.auth import ApiRequest, BearerToken
from feedback_app.api.error_handlers import error_handlers_add, token_urls
from feedback_app.api.errors import ApiError
from feedback_app.api.gateway import payloads, tools
from feedback_app.api.gateway.answers import LIVE, chat_request_of
from feedback_app.api.gateway.schemas import (
    FAULTS,
    ChatAnswer,
    ChatAsk,
    FeedbackAnswer,
    FeedbackAsk,
    ModelEntry,
    ModelList,
)
from feedback_app.feedback.models import BASE_VERSION, Completion, Source, Verdict
from feedback_app.feedback.tokens.services import voter_of
from feedback_app.feedback.votes.corrections import vote_cast_corrected
from feedback_app.serving.demo.events import event_stream
from feedback_app.serving.open_answers.services import Place, TooManyAnswers, token_place

api = NinjaAPI(
    title="Prospect",
    version="1",
    description="Chat with a project's versions as with OpenAI's API, and send thumbs back.",
    urls_namespace="gateway",
    docs_url=None,
)


@api.get("/models", response={200: ModelList, **FAULTS}, auth=BearerToken(None))
def models(request: ApiRequest) -> JsonResponse:
    """List the models: `live`, `base` and every version of the token's project."""
    project = request.auth.project
    versions = project.adapters.usable().newest_first().values_list("name", "created_at")
    listed = [(LIVE, project.created_at), (BASE_VERSION, project.created_at), *versions]
    # built by hand: to validate hundreds of entries takes longer than to read them
    entry = ModelEntry(id="", created=0).model_dump()
    data = [entry | {"id": name, "created": int(made.timestamp())} for name, made in listed]
    return JsonResponse(ModelList(data=[]).model_dump() | {"data": data})


@api.post("/chat/completions", response={200: ChatAnswer, **FAULTS}, auth=BearerToken(Scope.CHAT))
def chat_completions(request: ApiRequest, ask: ChatAsk) -> ChatAnswer | HttpResponseBase:
    """Generate an answer, complete or as server-sent events. It is stored and can be voted on."""
    answer = answer_with_tools if ask.with_tools else answer_stored
    try:
        with token_place(request.auth.pk) as place:
            return answer(ask, request.auth, place)
    except TooManyAnswers as error:
        raise ApiError(
            error.status,
            str(error),
            "too_many_answers",
            "rate_limit_error",
            retry_after=error.wait,
        ) from error


def answer_stored(ask: ChatAsk, token: ApiToken, place: Place) -> ChatAnswer | HttpResponseBase:
    chat = chat_request_of(ask, token=token)
    if not ask.stream:
        return payloads.complete(chat, place)
    events = payloads.events(chat, include_usage=ask.wants_usage)
    return event_stream(place.hold(payloads.StartedEvents(events)))


def answer_with_tools(ask: ChatAsk, token: ApiToken, place: Place) -> HttpResponseBase:
    chat = tools.tool_request_of(ask, token=token)
    if not ask.stream:
        return JsonResponse(tools.complete(chat, place))
    events = tools.events(chat, include_usage=ask.wants_usage)
    return event_stream(place.hold(payloads.StartedEvents(events)))


@api.post("/feedback", response={200: FeedbackAnswer, **FAULTS}, auth=BearerToken(Scope.FEEDBACK))
def feedback(request: ApiRequest, ask: FeedbackAsk) -> FeedbackAnswer:
    """Cast one person's vote on an answer of the API. Sending it again changes it."""
    token = request.auth
    answers = Completion.objects.select_related("project", "prompt")
    own = answers.filter(project=token.project, source=Source.API, **ask.lookup)
    # of several answers to one message, the last is on the screen
    completion = own.order_by("-pk").first()
    if completion is None:
        raise ApiError(
            404,
            f"This project has no API answer {ask.completion_id}.",
            "completion_not_found",
            param="completion_id",
        )
    vote = vote_cast_corrected(
        completion=completion,
        verdict=Verdict(ask.verdict),
        by=voter_of(token=token, name=ask.user),
        source=Source.API,
        reasons=ask.reasons,
        comment=ask.comment,
        correction=ask.correction,
    )
    return FeedbackAnswer(
        completion_id=completion.pk,
        verdict=ask.verdict,
        reasons=vote.reasons,
        comment=vote.comment,
        user=ask.user,
    )


error_handlers_add(api)


def gateway_urls() -> tuple[list[URLResolver | URLPattern], Any, Any]:
    """Return the API's URLs for include()."""
    return token_urls(api)
