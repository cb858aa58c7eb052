"""The page of a share link's visitors: one conversation.

These views need no sign-in: the link's secret in the URL takes its place, and the session
identifies the visitor.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_http_methods

from feedback_app.feedback.desk.forms import VoteForm
from feedback_app.feedback.models import Completion, Verdict
from feedback_app.serving.demo.branches import branch_show
from feedback_app.serving.demo.conversations import turn_again, turn_begin, turn_stream
from feedback_app.serving.demo.events import event_stream, turn_events
from feedback_app.serving.demo.forms import MessageForm
from feedback_app.serving.demo.transcript import Links, shown_turns, with_branches, with_votes
from feedback_app.serving.demo.views import wants_stream
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Conversation, ShareLink, ShareVisitor, Turn
from feedback_app.serving.open_answers.services import Place, TooManyAnswers, link_place
from feedback_app.serving.share_links.services import (
    LimitReached,
    link_find,
    link_is_open,
    message_count,
    visitor_create,
    visitor_undo,
    visitor_vote,
)
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import error_response

P = ParamSpec("P")
FAILED = "The model could not answer. Nothing was lost: try again in a moment."
ENDED = "This link does not work: it was revoked, has expired, or never existed."


class SharedRequest(HtmxHttpRequest):
    """A request with a share link's secret in its URL."""

    secret: str


SharedView = Callable[Concatenate[SharedRequest, ShareLink, P], HttpResponseBase]


def shared_view(method: str) -> Callable[[SharedView[P]], Callable[..., HttpResponseBase]]:
    """Pass the view its link; answer 404 for any other, whatever the reason."""

    def decorate(view: SharedView[P]) -> Callable[..., HttpResponseBase]:
        @login_not_required
        @require_http_methods([method])
        @wraps(view)
        def routed(
            request: SharedRequest, secret: str, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponseBase:
            request.secret = secret
            link = link_find(secret)
            try:
                response = ended(request) if link is None else view(request, link, *args, **kwargs)
            except UserError as error:
                response = message_response(request, error)
            # neither search engines nor linked pages may learn the URL
            response["X-Robots-Tag"] = "noindex, nofollow"
            response["Referrer-Policy"] = "no-referrer"
            add_never_cache_headers(response)
            return response

        return routed

    return decorate


def ended(request: SharedRequest) -> HttpResponse:
    """Return the same response for a revoked, an expired and an unknown link."""
    if wants_stream(request) or request.htmx:
        return HttpResponse(ENDED, status=404, content_type="text/plain")
    return render(request, "serving/shared_ended.html", status=404)


def message_response(request: SharedRequest, error: UserError) -> HttpResponse:
    """Return an error's message: to a script with a status, to a plain form on the page."""
    wait = error.wait if isinstance(error, LimitReached | TooManyAnswers) else 0
    if wants_stream(request):
        response = HttpResponse(str(error), status=429 if wait else 422, content_type="text/plain")
    else:
        response = error_response(request, str(error), back=home(request))
    if wait:
        response["Retry-After"] = str(wait)
    return response


def home(request: SharedRequest) -> str:
    return reverse("shared", args=[request.secret])


def session_key(link: ShareLink) -> str:
    return f"share-{link.pk}"


def visitor_of(request: SharedRequest, link: ShareLink) -> ShareVisitor | None:
    """Return the visitor of this browser, or None before the first message."""
    known = request.session.get(session_key(link))
    if known is None:
        return None
    return ShareVisitor.objects.select_related("user").filter(link=link, pk=known).first()


def conversation_of(visitor: ShareVisitor | None, link: ShareLink) -> Conversation | None:
    """Return the visitor's newest conversation."""
    if visitor is None:
        return None
    own = Conversation.objects.kept().filter(project=link.project, user=visitor.user)
    found = own.order_by("-updated_at").first()
    if found is not None:
        found.project = link.project
    return found


def shared_links(request: SharedRequest) -> Callable[[Turn], Links]:
    """Return the function that `with_votes` gets a visitor's links from."""

    def links(turn: Turn) -> Links:
        answer = [request.secret, turn.completion_id or 0]
        return Links(
            vote=reverse("shared-vote", args=answer),
            undo=reverse("shared-undo", args=answer),
            again=reverse("shared-again", args=[request.secret, turn.pk]),
            show=reverse("shared-show", args=[request.secret, 0]),
        )

    return links


@shared_view("GET")
def shared(request: SharedRequest, link: ShareLink) -> HttpResponseBase:
    """Show the conversation."""
    query_strict(request, ())
    visitor = visitor_of(request, link)
    found = conversation_of(visitor, link)
    turns: list[Turn] = []
    if visitor is not None and found is not None:
        turns = shown_turns(found, of=visitor.user, links=shared_links(request))
    context = {
        "project": link.project,
        "link": link,
        "secret": request.secret,
        "turns": turns,
        "left": max(0, link.messages_each - (visitor.messages_used if visitor else 0)),
    }
    return render(request, "serving/shared.html", context)


@shared_view("POST")
def shared_send(request: SharedRequest, link: ShareLink) -> HttpResponseBase:
    """Send a message. The first one creates the visitor and the conversation."""
    text = validated(MessageForm(request.POST))["text"]
    with link_place(link.pk) as place:
        with transaction.atomic():
            visitor = visitor_of(request, link) or visitor_create(link)
            message_count(link=link, visitor=visitor)
            conversation = conversation_of(visitor, link) or conversation_begin(visitor, link)
            turn = turn_begin(conversation=conversation, text=text)
        request.session[session_key(link)] = visitor.pk
        return answer(request, link, visitor, conversation, turn, place)


def conversation_begin(visitor: ShareVisitor, link: ShareLink) -> Conversation:
    return Conversation.objects.create(project=link.project, user=visitor.user, choice=link.choice)


@shared_view("POST")
def shared_new(request: SharedRequest, link: ShareLink) -> HttpResponseBase:
    """Begin a new conversation; the earlier one is kept, but not shown any more."""
    validated(NoFields(request.POST))
    visitor = visitor_of(request, link)
    found = conversation_of(visitor, link)
    if visitor is not None and found is not None and found.turns.exists():
        conversation_begin(visitor, link)
    return redirect(home(request))


@shared_view("POST")
def shared_again(request: SharedRequest, link: ShareLink, turn: int) -> HttpResponseBase:
    """Generate the last answer again, for an edited message if `text` is given."""
    text = validated(MessageForm(request.POST))["text"]
    visitor = visitor_of(request, link)
    found = conversation_of(visitor, link)
    if visitor is None or found is None:
        return ended(request)
    old = get_object_or_404(found.turns, pk=turn)
    with link_place(link.pk) as place:
        with transaction.atomic():
            message_count(link=link, visitor=visitor)
            fresh = turn_again(turn=old, text=text or None)
        return answer(request, link, visitor, found, fresh, place)


@shared_view("POST")
def shared_show(request: SharedRequest, link: ShareLink, turn: int) -> HttpResponseBase:
    """Show the branch through another answer or an earlier question."""
    validated(NoFields(request.POST))
    visitor = visitor_of(request, link)
    found = conversation_of(visitor, link)
    if found is None:
        return ended(request)
    branch_show(turn=get_object_or_404(found.turns, pk=turn))
    return redirect(f"{home(request)}#turn-{turn}")


def answer(
    request: SharedRequest,
    link: ShareLink,
    visitor: ShareVisitor,
    conversation: Conversation,
    turn: Turn,
    place: Place,
) -> HttpResponseBase:
    """Generate the answer: as a stream, or completely before redirecting to the page.

    It is aborted when the link ends.
    """
    turn.conversation = conversation
    if wants_stream(request):
        events = turn_events(
            turn,
            rendered=lambda done: reply_html(request, link, visitor, done),
            url=home(request),
            may_read=link_is_open(link),
            message_of=lambda error: FAILED,
        )
        return event_stream(place.hold(events))
    try:
        for _ in turn_stream(turn=turn, may_read=link_is_open(link)):
            place.renew()
    except EngineError:
        messages.error(request, FAILED)
    return redirect(home(request))


def reply_html(request: SharedRequest, link: ShareLink, visitor: ShareVisitor, turn: Turn) -> str:
    """Return the HTML of the finished answer with its thumbs."""
    found = with_votes([turn], of=visitor.user, links=shared_links(request))
    [shown] = with_branches(found, turn.conversation)
    context: dict[str, Any] = {
        "turn": shown,
        "project": link.project,
        "is_last": True,
        "shared": True,
    }
    return render_to_string("serving/_reply.html", context, request=request)


def own_answer(
    request: SharedRequest, link: ShareLink, pk: int
) -> tuple[ShareVisitor, Completion, Turn]:
    """Return an answer of one of the visitor's conversations, or raise 404."""
    visitor = visitor_of(request, link)
    turns = Turn.objects.select_related("completion__prompt", "completion__project")
    turn = get_object_or_404(
        turns,
        completion=pk,
        conversation__user=visitor.user_id if visitor else 0,
        conversation__project=link.project,
    )
    if visitor is None or turn.completion is None:  # excluded by the query
        raise AssertionError
    return visitor, turn.completion, turn


@shared_view("POST")
def shared_vote(request: SharedRequest, link: ShareLink, pk: int) -> HttpResponseBase:
    """Cast a vote on an answer."""
    visitor, completion, turn = own_answer(request, link, pk)
    form = VoteForm(request.POST)
    values = validated(form)
    visitor_vote(
        link=link,
        visitor=visitor,
        completion=completion,
        verdict=Verdict(values["verdict"]),
        reasons=form.reasons_given(),
        comment=form.comment_given(),
    )
    return thumbs(request, link, visitor, turn)


@shared_view("POST")
def shared_undo(request: SharedRequest, link: ShareLink, pk: int) -> HttpResponseBase:
    """Undo the vote."""
    visitor, completion, turn = own_answer(request, link, pk)
    validated(NoFields(request.POST))
    visitor_undo(link=link, visitor=visitor, completion=completion)
    return thumbs(request, link, visitor, turn)


def thumbs(
    request: SharedRequest, link: ShareLink, visitor: ShareVisitor, turn: Turn
) -> HttpResponseBase:
    """Show the current thumbs."""
    if not request.htmx:
        return redirect(home(request))
    [shown] = with_votes([turn], of=visitor.user, links=shared_links(request))
    return render(request, "serving/_thumbs.html", {"turn": shown, "project": link.project})
