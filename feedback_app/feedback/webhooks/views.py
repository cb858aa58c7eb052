"""Webhooks of a project and their delivery logs, for owners and admins."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.db.bounded_count import counted_of
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery
from feedback_app.feedback.webhooks.forms import WebhookForm
from feedback_app.feedback.webhooks.services import (
    delivery_repeat,
    ping_write,
    webhook_create,
    webhook_remove,
    webhook_switch,
)
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, page

LIST = "feedback/webhooks.html"
LOG = "feedback/webhook.html"
PAGE_SIZE = 25  # of webhooks, and of deliveries
STATES = ("", *WebhookDelivery.Status.values)


@project_view(Role.ADMIN)
def webhooks(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the webhooks, and a form for another."""
    if request.method == "POST":
        return webhook_new(request, project)
    return webhook_list(request, project)


@page
def webhook_list(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ("page",))
    return render(request, LIST, webhooks_context(request, project, WebhookForm()))


@never_cache
@action_view
def webhook_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Create a webhook. Its secret is in this response only, so there is no redirect."""
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            webhook, secret = webhook_create(
                project=project,
                url=form.cleaned_data["url"],
                events=[Event(event) for event in form.cleaned_data["events"]],
                by=request.user,
            )
        except UserError as error:
            form.add_error("url", str(error))
        else:
            made = {"webhook": webhook, "secret": secret}
            context = webhooks_context(request, project, WebhookForm())
            return render(request, LIST, context | made)
    return render(request, LIST, webhooks_context(request, project, form), status=400)


def webhooks_context(
    request: HtmxHttpRequest, project: Project, form: WebhookForm
) -> dict[str, Any]:
    rows = project.webhooks.order_by("-pk")
    listed = rows.select_related("created_by").annotate(
        waiting=counted_of(Webhook, WebhookDelivery, "status = 'waiting'", on=("webhook_id", "id")),
        failed=counted_of(Webhook, WebhookDelivery, "status = 'failed'", on=("webhook_id", "id")),
    )
    shown = ListedPaginator(listed, PAGE_SIZE, of=rows).get_page(query_page(request))
    return {"project": project, "form": form, "page": shown}


def webhook_of(project: Project, pk: int) -> Webhook:
    """Return the project's webhook with this number. Raise Http404."""
    webhook: Webhook = get_object_or_404(project.webhooks.select_related("created_by"), pk=pk)
    webhook.project = project
    return webhook


@project_view(Role.ADMIN)
@page
def webhook_log(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Show the deliveries of a webhook, newest first; the list refreshes while some are due."""
    query_strict(request, ("state", "page"))
    webhook = webhook_of(project, pk)
    state = query_choice(request, "state", STATES)
    rows = webhook.deliveries.order_by("-pk")
    shown = rows.filter(status=state) if state else rows
    due = webhook.deliveries.due().exists()
    context = {
        "project": project,
        "webhook": webhook,
        "state": state,
        "states": WebhookDelivery.Status.choices,
        "page": ListedPaginator(shown, PAGE_SIZE).get_page(query_page(request)),
        "query": f"state={state}" if state else "",
        "due": due,
    }
    if not request.htmx:
        context["former"] = project.webhooks.of_former_admins().filter(pk=pk).exists()
    response = render(request, f"{LOG}#log" if request.htmx else LOG, context)
    if request.htmx and not due and request.htmx.trigger == "log":
        response.status_code = HttpResponseStopPolling.status_code
    return response


@project_view(Role.ADMIN)
@action_view
def webhook_test(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Send a test event."""
    webhook = webhook_of(project, pk)
    validated(NoFields(request.POST))
    if not webhook.active:
        raise UserError("This webhook is paused. Resume it first.")
    ping_write(webhook=webhook)
    messages.success(request, "Test event queued. The log shows the result.")
    return redirect("webhook", project.slug, pk)


@project_view(Role.ADMIN, archived=True)
@action_view
def webhook_pause(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Pause the webhook."""
    webhook = webhook_of(project, pk)
    validated(NoFields(request.POST))
    webhook_switch(webhook=webhook, on=False, by=request.user)
    messages.success(request, "Webhook paused. Events that happen meanwhile are not sent later.")
    return redirect("webhook", project.slug, pk)


@project_view(Role.ADMIN)
@action_view
def webhook_resume(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Resume the webhook."""
    webhook = webhook_of(project, pk)
    validated(NoFields(request.POST))
    webhook_switch(webhook=webhook, on=True, by=request.user)
    messages.success(request, "Webhook resumed.")
    return redirect("webhook", project.slug, pk)


@project_view(Role.ADMIN, archived=True)
@action_view
def webhook_remove_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Delete the webhook with its log."""
    webhook = webhook_of(project, pk)
    validated(NoFields(request.POST))
    webhook_remove(webhook=webhook, by=request.user)
    messages.success(request, "Webhook and log deleted.")
    return redirect("webhooks", project.slug)


@project_view(Role.ADMIN)
@action_view
def delivery_again(
    request: HtmxHttpRequest, project: Project, pk: int, delivery: int
) -> HttpResponseBase:
    """Send one delivery again."""
    found = get_object_or_404(webhook_of(project, pk).deliveries, pk=delivery)
    validated(NoFields(request.POST))
    delivery_repeat(delivery=found)
    messages.success(request, "Queued to be sent again.")
    return redirect("webhook", project.slug, pk)
