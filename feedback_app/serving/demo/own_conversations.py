"""A person's own conversations: their list, names, branches and settings, and their removal."""

import uuid
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Exists, OuterRef, Q
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.serving.conversation_log.removal import conversations_remove
from feedback_app.serving.demo.branches import branch_show
from feedback_app.serving.demo.forms import RenameForm, SearchForm, SettingsForm
from feedback_app.serving.demo.views import conversation_of, own_conversations
from feedback_app.serving.models import Turn
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


@project_view(Role.VIEWER)
@page
def conversations(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """List the person's conversations, or those in which a text was said."""
    query_strict(request, ("text", "page"))
    text = validated(SearchForm({"text": request.GET.get("text", "")}))["text"]
    turns = Turn.objects.filter(conversation=OuterRef("pk"))
    rows = own_conversations(request, project).filter(Exists(turns))
    if text:
        said = Q(user_message__icontains=text) | Q(completion__text__icontains=text)
        rows = rows.filter(Q(title__icontains=text) | Exists(turns.filter(said)))
    found = ListedPaginator(rows.order_by("-updated_at", "-pk"), PAGE_SIZE)
    context = {
        "project": project,
        "page": found.get_page(query_page(request)),
        "text": text,
        "query": urlencode({"text": text}) if text else "",
    }
    return render(request, "serving/conversations.html", context)


@project_view(Role.VIEWER)
@action_view
def conversation_rename_view(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Give a conversation another name."""
    found = conversation_of(request, project, pk)
    found.title = validated(RenameForm(request.POST))["title"]
    # not `updated_at`: it was not talked in
    found.save(update_fields=["title"])
    messages.success(request, "Renamed.")
    return redirect(back_to(request, project, pk))


@project_view(Role.VIEWER)
@action_view
def conversation_delete_view(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Delete a conversation. Answers with a thumb stay as examples."""
    found = conversation_of(request, project, pk)
    validated(NoFields(request.POST))
    conversations_remove([found.pk])
    messages.success(request, "Deleted. Answers with a thumb stay as examples.")
    return redirect("conversations", project.slug)


@project_view(Role.ADMIN)
@action_view
def conversation_settings(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Set what is tried in this conversation alone: a system prompt and a temperature."""
    found = conversation_of(request, project, pk)
    back = reverse("conversation", args=[project.slug, pk])
    try:
        values = validated(SettingsForm(request.POST))
    except UserError as error:
        return error_response(request, str(error), back=back)
    found.system_prompt = values["system_prompt"] if values["own_prompt"] else None
    found.temperature = values["temperature"]
    found.save(update_fields=["system_prompt", "temperature"])
    messages.success(request, "Saved for this conversation.")
    return redirect(back)


@project_view(Role.VIEWER)
@action_view
def turn_show(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID, turn: int
) -> HttpResponseBase:
    """Show the branch through another answer or an earlier question."""
    found = conversation_of(request, project, pk)
    chosen = get_object_or_404(found.turns, pk=turn)
    validated(NoFields(request.POST))
    branch_show(turn=chosen)
    return redirect(reverse("conversation", args=[project.slug, pk]) + f"#turn-{turn}")


def back_to(request: HtmxHttpRequest, project: Project, pk: uuid.UUID) -> str:
    """Return the list if the form was there, else the conversation."""
    listed = reverse("conversations", args=[project.slug])
    if listed in request.headers.get("Referer", ""):
        return listed
    return reverse("conversation", args=[project.slug, pk])
