"""The demo: conversations with the live version or any other, and thumbs on the answers."""

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view, unpaused
from feedback_app.feedback.desk.forms import CorrectedVoteForm
from feedback_app.feedback.models import Completion, FollowUp, Project, Source, Verdict
from feedback_app.feedback.votes.corrections import vote_cast_corrected
from feedback_app.feedback.votes.services import vote_undo
from feedback_app.serving.demo.conversations import (
    choice_is_usable,
    conversation_choose,
    turn_again,
    turn_begin,
    turn_stream,
    version_of,
    versions_offered,
)
from feedback_app.serving.demo.events import event_stream, turn_events
from feedback_app.serving.demo.forms import ChoiceForm, ConversationForm, MessageForm
from feedback_app.serving.demo.transcript import Links, shown_turns, with_branches, with_votes
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.follow_ups.services import follow_up_record, question_followed
from feedback_app.serving.models import Conversation, Turn
from feedback_app.serving.open_answers.services import Place, TooManyAnswers, person_place
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, page

CONVERSATIONS_SHOWN = 30
IDEAS_SHOWN = 4


def own_conversations(request: HtmxHttpRequest, project: Project) -> QuerySet[Conversation]:
    """Return the person's conversations that they have not deleted."""
    return Conversation.objects.kept().filter(project=project, user=request.user)


def conversation_of(request: HtmxHttpRequest, project: Project, pk: uuid.UUID) -> Conversation:
    """Return the person's own conversation, or raise 404."""
    conversation: Conversation = get_object_or_404(own_conversations(request, project), pk=pk)
    conversation.project = project
    return conversation


def demo_links(project: Project) -> Callable[[Turn], Links]:
    """Return the function that `with_votes` gets a member's links from."""

    def links(turn: Turn) -> Links:
        answer = [project.slug, turn.completion_id or 0]
        return Links(
            vote=reverse("demo-vote", args=answer),
            undo=reverse("demo-undo", args=answer),
            again=reverse("turn-again", args=[project.slug, turn.conversation_id, turn.pk]),
            show=reverse("turn-show", args=[project.slug, turn.conversation_id, 0]),
            corrects=True,
        )

    return links


def demo_context(
    request: HtmxHttpRequest, project: Project, conversation: Conversation | None
) -> dict[str, Any]:
    shown: list[Turn] = []
    if conversation is not None:
        shown = shown_turns(conversation, of=request.user, links=demo_links(project))
    chat = conversation or Conversation(project=project, user=request.user)
    return {
        "project": project,
        "conversation": conversation,
        "conversations": own_conversations(request, project).order_by("-updated_at")[
            :CONVERSATIONS_SHOWN
        ],
        "turns": shown,
        "last_turn": shown[-1] if shown else None,
        "choice": chat.choice,
        "version": version_of(chat),
        "versions": versions_offered(project, chat.choice),
        "ideas": ()
        if shown
        else project.prompts.active().exclude(topic="").order_by("content_hash")[:IDEAS_SHOWN],
    }


@project_view(Role.VIEWER)
@page
def demo(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the newest conversation, or an empty new one."""
    newest = own_conversations(request, project).order_by("-updated_at").first()
    if newest is not None:
        newest.project = project
    return render(request, "serving/demo.html", demo_context(request, project, newest))


@project_view(Role.VIEWER)
@page
def conversation(request: HtmxHttpRequest, project: Project, pk: uuid.UUID) -> HttpResponseBase:
    """Show a conversation."""
    found = conversation_of(request, project, pk)
    return render(request, "serving/demo.html", demo_context(request, project, found))


@project_view(Role.VIEWER)
@action_view
def conversation_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Begin a conversation, with the message if one was typed; reuse an unused one."""
    values = validated(ConversationForm(request.POST))
    fresh = own_conversations(request, project).filter(turns=None).first()
    if fresh is None:
        fresh = Conversation(project=project, user=request.user)
    fresh.project = project
    if not choice_is_usable(fresh):
        fresh.choice = Conversation.LIVE
    if values["choice"]:
        conversation_choose(conversation=fresh, choice=values["choice"])
    if values["text"].strip():
        try:
            with person_place(request.user.pk) as place:
                turn = turn_begin(conversation=fresh, text=values["text"])
                return answer(request, fresh, turn, place)
        except TooManyAnswers as error:
            if wants_stream(request):
                return refused_text(error)
            raise
    fresh.save()  # also a reused one: the demo opens the newest
    return redirect("conversation", project.slug, fresh.pk)


@project_view(Role.VIEWER)
@action_view
def conversation_send(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Send a message; the answer streams, or the page is shown again when it is complete."""
    found = conversation_of(request, project, pk)
    text = validated(MessageForm(request.POST))["text"]
    try:
        with person_place(request.user.pk) as place:
            turn = turn_begin(conversation=found, text=text)
            question_followed(project=project, before=turn.parent, text=turn.user_message)
            return answer(request, found, turn, place)
    except UserError as error:
        return refused(request, found, error)


@project_view(Role.VIEWER)
@action_view
def turn_again_view(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID, turn: int
) -> HttpResponseBase:
    """Generate the last answer again, for an edited message if `text` is given."""
    found = conversation_of(request, project, pk)
    old = get_object_or_404(found.turns, pk=turn)
    text = validated(MessageForm(request.POST))["text"]
    try:
        with person_place(request.user.pk) as place:
            fresh = turn_again(turn=old, text=text or None)
            if text.strip():
                question_followed(project=project, before=old, text=text)
            elif project.follow_ups and old.completion is not None:
                old.completion.project = project
                follow_up_record(
                    completion=old.completion,
                    user_id=request.user.pk,
                    kind=FollowUp.Kind.REGENERATED,
                )
            return answer(request, found, fresh, place)
    except UserError as error:
        return refused(request, found, error)


@project_view(Role.VIEWER)
@action_view
def conversation_choose_view(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Set the version that answers from now on."""
    found = conversation_of(request, project, pk)
    conversation_choose(conversation=found, choice=validated(ChoiceForm(request.POST))["choice"])
    return redirect("conversation", project.slug, found.pk)


def refused(
    request: HtmxHttpRequest, conversation: Conversation, why: UserError
) -> HttpResponseBase:
    """Return the message with its status to a script, or redirect a plain form with it."""
    if wants_stream(request):
        return refused_text(why)
    messages.error(request, str(why))
    return redirect("conversation", conversation.project.slug, conversation.pk)


def refused_text(why: UserError) -> HttpResponse:
    """Return the message that a script shows when nothing was changed."""
    response = HttpResponse(str(why), status=why.status, content_type="text/plain")
    if isinstance(why, TooManyAnswers):
        response["Retry-After"] = str(why.wait)
    return response


def wants_stream(request: HtmxHttpRequest) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def answer(
    request: HtmxHttpRequest, conversation: Conversation, turn: Turn, place: Place
) -> HttpResponseBase:
    """Generate the answer: as a stream, or completely before redirecting to the page."""
    turn.conversation = conversation
    if wants_stream(request):
        events = turn_events(turn, rendered=lambda done: reply_html(request, done))
        return event_stream(place.hold(events))
    try:
        for _ in turn_stream(turn=turn):
            place.renew()
    except EngineError as error:
        messages.error(request, str(error))
    return redirect("conversation", conversation.project.slug, conversation.pk)


def reply_html(request: HtmxHttpRequest, turn: Turn) -> str:
    """Return the HTML of the finished answer with its thumbs."""
    earlier = turn.conversation.turns.shown().exclude(completion=None)
    if turn.position is not None:  # meanwhile another branch may be shown
        earlier = earlier.filter(position__lt=turn.position)
    before = earlier.values_list("completion__version", flat=True).last()
    project = turn.conversation.project
    found = with_votes([turn], of=request.user, links=demo_links(project), before=before or "")
    [shown] = with_branches(found, turn.conversation)
    context = {"turn": shown, "project": project, "is_last": True}
    return render_to_string("serving/_reply.html", context, request=request)


# -- thumbs, and what a reader does with an answer


def own_completion(request: HtmxHttpRequest, project: Project, pk: int) -> Completion:
    """Return an answer of one of the person's own conversations, or raise 404."""
    own = project.completions.filter(
        turns__conversation__user=request.user, turns__conversation__project=project
    )
    return get_object_or_404(own.select_related("project", "prompt").distinct(), pk=pk)


@project_view(Role.VIEWER)
@action_view
def demo_vote(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Cast a vote on an answer."""
    unpaused(request)
    completion = own_completion(request, project, pk)
    form = CorrectedVoteForm(request.POST)
    values = validated(form)
    vote_cast_corrected(
        completion=completion,
        correction=values["correction"],
        verdict=Verdict(values["verdict"]),
        by=request.user,
        source=Source.DEMO,
        reasons=form.reasons_given(),
        comment=form.comment_given(),
    )
    return thumbs_answer(request, project, completion)


@project_view(Role.VIEWER)
@action_view
def demo_undo(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Undo the vote."""
    unpaused(request)
    completion = own_completion(request, project, pk)
    validated(NoFields(request.POST))
    vote_undo(completion=completion, by=request.user, source=Source.DEMO)
    return thumbs_answer(request, project, completion)


@project_view(Role.VIEWER)
@action_view
def demo_copied(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Note that the person has copied an answer of theirs."""
    validated(NoFields(request.POST))
    completion = own_completion(request, project, pk)
    follow_up_record(completion=completion, user_id=request.user.pk, kind=FollowUp.Kind.COPIED)
    return HttpResponse(status=204)


def thumbs_answer(
    request: HtmxHttpRequest, project: Project, completion: Completion
) -> HttpResponse:
    """Show the current thumbs."""
    turn = get_object_or_404(
        Turn.objects.select_related("conversation", "completion"),
        completion=completion,
        conversation__user=request.user,
    )
    if not request.htmx:
        return redirect("conversation", project.slug, turn.conversation_id)
    [shown] = with_votes([turn], of=request.user, links=demo_links(project))
    return render(request, "serving/_thumbs.html", {"turn": shown, "project": project})
