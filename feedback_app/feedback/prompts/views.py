"""The page of a project's prompts."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project, Prompt
from feedback_app.feedback.prompts.editing import (
    prompt_edit,
    prompt_restore,
    prompt_retire,
    prompts_paste,
)
from feedback_app.feedback.prompts.forms import PromptForm, PromptsForm
from feedback_app.feedback.prompts.listing import SOURCES, WINDOW, PromptFilter, topics_of
from feedback_app.feedback.prompts.sampling_panel import sampling_panel
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_page, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
def prompts(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the prompts with a form for more, or add some."""
    if request.method == "POST":
        return prompts_new(request, project)
    return prompts_show(request, project)


@page
def prompts_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    return list_page(request, project, PromptsForm())


@action_view
def prompts_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Add prompts; errors are shown in the form."""
    form = PromptsForm(request.POST)
    if form.is_valid():
        try:
            found = prompts_paste(project=project, by=request.user, **form.cleaned_data)
        except UserError as error:
            form.add_error("text", str(error))
        else:
            known = f" {found.known} were there already." if found.known else ""
            messages.success(request, f"{found.added} added.{known}")
            return redirect("prompts", project.slug)
    return list_page(request, project, form, status=400)


def list_page(
    request: HtmxHttpRequest, project: Project, form: PromptsForm, *, status: int = 200
) -> HttpResponseBase:
    chosen = PromptFilter.of(request)
    found = CountedPaginator(chosen.select(project), PAGE_SIZE).get_page(query_page(request))
    context: dict[str, Any] = {
        "project": project,
        "form": form,
        "chosen": chosen,
        "page": found,
        "query": chosen.query(),
        "topics": topics_of(project),
        "sources": SOURCES,
        "window": WINDOW,
        "any_prompts": project.prompts.exists(),
        "back": "prompts",
        **sampling_panel(project),
    }
    return render(request, "feedback/prompts.html", context, status=status)


@project_view(Role.ADMIN)
def prompt(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Show one prompt with its form, or change it."""
    found = get_object_or_404(project.prompts.select_related("project"), pk=pk)
    if request.method == "POST":
        return prompt_save(request, found)
    return prompt_show(request, found)


@page
def prompt_show(request: HtmxHttpRequest, found: Prompt) -> HttpResponseBase:
    return prompt_page(
        request, found, PromptForm(initial={"text": found.title, "topic": found.topic})
    )


@action_view
def prompt_save(request: HtmxHttpRequest, found: Prompt) -> HttpResponseBase:
    """Change a prompt; errors are shown in the form."""
    form = PromptForm(request.POST)
    if form.is_valid():
        try:
            saved = prompt_edit(prompt=found, by=request.user, **form.cleaned_data)
        except UserError as error:
            form.add_error("text", str(error))
        else:
            text = (
                "Saved."
                if saved.pk == found.pk
                else "Saved as a new prompt. The old one is retired; its answers and votes stay."
            )
            messages.success(request, text)
            return redirect("prompt", found.project.slug, saved.pk)
    return prompt_page(request, found, form, status=400)


def prompt_page(
    request: HtmxHttpRequest, found: Prompt, form: PromptForm, *, status: int = 200
) -> HttpResponseBase:
    context = {
        "project": found.project,
        "prompt": found,
        "form": form,
        "earlier": found.messages if found.ends_with_tool else found.messages[:-1],
        "topics": topics_of(found.project),
    }
    return render(request, "feedback/prompt.html", context, status=status)


@project_view(Role.ADMIN)
@action_view
def prompt_retire_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Retire a prompt."""
    found = get_object_or_404(project.prompts.select_related("project"), pk=pk)
    validated(NoFields(request.POST))
    if prompt_retire(prompt=found, by=request.user):
        messages.info(request, "Retired: no longer asked. You can restore it under 'Retired'.")
    return redirect("prompts", project.slug)


@project_view(Role.ADMIN)
@action_view
def prompt_restore_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Ask a retired prompt again."""
    found = get_object_or_404(project.prompts.select_related("project"), pk=pk)
    validated(NoFields(request.POST))
    if prompt_restore(prompt=found, by=request.user):
        messages.success(request, "Restored. The next sampling asks it.")
    return redirect(reverse("prompts", args=[project.slug]) + "?show=retired")
