"""Pushing a version from its page."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter, VersionPush
from feedback_app.training.pushes.destinations import pushes_offered
from feedback_app.training.pushes.forms import PushForm
from feedback_app.training.pushes.services import push_request
from feedback_app.training.registry.views import adapter_of, run_url
from feedback_app.web.errors import UserError
from feedback_app.web.forms import validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response


def push_context(adapter: Adapter) -> dict[str, Any]:
    """Return what the page shows of pushes of the version: the newest one, and a form for the next
    where this installation pushes at all."""
    push = VersionPush.objects.select_related("requested_by").filter(adapter=adapter).first()
    if not pushes_offered() or adapter.locked_at or adapter.deleted_at:
        return {"push": push}
    destination = push.destination if push is not None else ""
    allowed = settings.PUSH_DESTINATIONS
    form = PushForm(initial={"destination": destination or allowed[0]})
    return {"push": push, "push_form": form, "push_allowed": allowed}


@project_view(Role.ADMIN)
@action_view
def adapter_push(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Queue a push of the version; a worker sends the files."""
    destination = validated(PushForm(request.POST))["destination"]
    adapter = adapter_of(project, name)
    back = run_url(project, adapter) + "#push"
    try:
        push_request(adapter=adapter, destination=destination, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"{name} is queued: a worker sends its files.")
    return redirect(back)
