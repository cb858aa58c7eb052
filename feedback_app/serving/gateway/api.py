"""The gateway's operations: `/v1/models`, `/v1/chat/completions`, `/v1/feedback`."""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from feedback_app.accounts.models import Scope
from feedback_app.feedback.errors import BadRequest, TooMany
from feedback_app.feedback.models import BASE_VERSION, Completion, Source, Verdict
from feedback_app.feedback.services import vote_cast
from feedback_app.feedback.services_flood import REST_SECONDS
from feedback_app.feedback.services_tokens import voter_of
from feedback_app.serving.client import EngineError
from feedback_app.serving.gateway import faults, shapes
from feedback_app.serving.gateway.answers import LIVE, question_of
from feedback_app.serving.gateway.entrance import ApiRequest, BearerToken
from feedback_app.serving.gateway.faults import ApiFault
from feedback_app.serving.gateway.schemas import (
    FAULTS,
    ChatAnswer,
    ChatAsk,
    FeedbackAnswer,
    FeedbackAsk,
    ModelEntry,
    ModelList,
)
from feedback_app.serving.stream import event_stream

api = NinjaAPI(
    title="Prospect",
    version="1",
    description="Chat with a project's versions as with OpenAI's API, and send thumbs back.",
    urls_namespace="gateway",
    docs_url=None,
)


@api.get("/models", response={200: ModelList, **FAULTS}, auth=BearerToken(None))
def models(request: ApiRequest) -> ModelList:
    """What may be asked: `live`, `base` and every version of the token's project."""
    project = request.auth.project
    created = int(project.created_at.timestamp())
    versions = project.adapters.usable().newest_first().values_list("name", "created_at")
    return ModelList(
        data=[
            *(ModelEntry(id=name, created=created) for name in (LIVE, BASE_VERSION)),
            *(ModelEntry(id=name, created=int(made.timestamp())) for name, made in versions),
        ]
    )


@api.post("/chat/completions", response={200: ChatAnswer, **FAULTS}, auth=BearerToken(Scope.CHAT))
def chat_completions(request: ApiRequest, ask: ChatAsk) -> ChatAnswer | HttpResponseBase:
    """One answer, whole or as server-sent events. It is stored and can be voted on."""
    question = question_of(ask, token=request.auth)
    if not ask.stream:
        return shapes.whole(question)
    usage = ask.stream_options is not None and ask.stream_options.include_usage
    return event_stream(shapes.Begun(shapes.events(question, include_usage=usage)))


@api.post("/feedback", response={200: FeedbackAnswer, **FAULTS}, auth=BearerToken(Scope.FEEDBACK))
def feedback(request: ApiRequest, ask: FeedbackAsk) -> FeedbackAnswer:
    """One person's thumb on one answer of the API. Sending it again changes it."""
    token = request.auth
    answers = Completion.objects.select_related("project", "prompt")
    completion = answers.filter(project=token.project, source=Source.API, pk=ask.key).first()
    if completion is None:
        raise ApiFault(
            404,
            f"This project has given no answer {ask.completion_id} through the API.",
            "completion_not_found",
            param="completion_id",
        )
    vote = vote_cast(
        completion=completion,
        verdict=Verdict(ask.verdict),
        by=voter_of(token=token, name=ask.user),
        source=Source.API,
        reasons=ask.reasons,
        comment=ask.comment,
    )
    return FeedbackAnswer(
        completion_id=completion.pk,
        verdict=ask.verdict,
        reasons=vote.reasons,
        comment=vote.comment,
        user=ask.user,
    )


# -- faults


@api.exception_handler(ApiFault)
def on_fault(request: HttpRequest, error: ApiFault) -> HttpResponseBase:
    return faults.respond(request, error)


@api.exception_handler(AuthenticationError)
def on_no_token(request: HttpRequest, error: AuthenticationError) -> HttpResponseBase:
    return faults.respond(request, faults.unauthorised())


@api.exception_handler(ValidationError)
def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponseBase:
    return faults.respond(request, faults.of_validation(error.errors))


@api.exception_handler(HttpError)
def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponseBase:
    """Ninja's own: a body that is no JSON."""
    fault = ApiFault(error.status_code, "The body must be a JSON object.", "invalid_json")
    return faults.respond(request, fault)


@api.exception_handler(RequestDataTooBig)
def on_too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponseBase:
    return faults.respond(request, ApiFault(413, "The body is too large.", "body_too_large"))


@api.exception_handler(BadRequest)
def on_bad_request(request: HttpRequest, error: BadRequest) -> HttpResponseBase:
    return faults.respond(request, ApiFault(400, str(error), "invalid_value"))


@api.exception_handler(TooMany)
def on_too_many(request: HttpRequest, error: TooMany) -> HttpResponseBase:
    """One of the product's people votes too fast; the others' votes go on."""
    fault = ApiFault(
        429, str(error), "too_many_votes", "rate_limit_error", retry_after=REST_SECONDS
    )
    return faults.respond(request, fault)


@api.exception_handler(EngineError)
def on_engine_error(request: HttpRequest, error: EngineError) -> HttpResponseBase:
    return faults.respond(request, faults.of_engine(error))


def gateway_urls() -> tuple[list[URLResolver | URLPattern], Any, Any]:
    """The API's URLs for include(). A token takes the place of a sign-in."""
    patterns, app, namespace = api.urls
    for pattern in patterns:
        if pattern.callback is not None:
            login_not_required(pattern.callback)
    return patterns, app, namespace
