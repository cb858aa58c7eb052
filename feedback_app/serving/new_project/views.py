"""The page of a new project."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from feedback_app.accounts.models import Membership, Role, roles_from
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.services import may_create_projects
from feedback_app.serving.new_project.forms import NewProjectForm
from feedback_app.serving.new_project.services import project_new
from feedback_app.web.errors import Conflict
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest

REFUSED = (
    "Owners of a project can create another one. Ask one of them, or the operator of this "
    "installation."
)


@require_http_methods(["GET", "HEAD", "POST"])
def new_project(request: HtmxHttpRequest) -> HttpResponseBase:
    """Show the form of a new project, or create it. `like` is the project to copy settings of."""
    query_strict(request, ("like",))
    if not may_create_projects(request.user):
        raise PermissionDenied(REFUSED)
    if request.method != "POST":
        like = copied_of(request, request.GET.get("like", ""))
        return form_page(request, NewProjectForm(initial=initial_of(like)), like)
    like = copied_of(request, request.POST.get("like", ""))
    form = NewProjectForm(request.POST)
    if not form.is_valid():
        return form_page(request, form, like, status=400)
    values = dict(form.cleaned_data)
    del values["like"]
    starter = values.pop("starter_prompts")
    try:
        project = project_new(by=request.user, like=like, with_starter_prompts=starter, **values)
    except Conflict as error:
        form.add_error("slug", str(error))
        return form_page(request, form, like, status=409)
    messages.success(request, f"{project.name} was created.")
    return redirect("project-home", project.slug)


def copied_of(request: HtmxHttpRequest, slug: str) -> Project | None:
    """Return the project whose settings are copied: one that this person administers, else 404."""
    if not slug:
        return None
    own = Membership.objects.filter(user=request.user, role__in=roles_from(Role.ADMIN))
    found = own.filter(project__slug=slug[:50]).select_related("project").first()
    if found is None:
        raise Http404("No such project.")
    return found.project


def initial_of(like: Project | None) -> dict[str, Any]:
    if like is None:
        return {"base_model": settings.BASE_MODEL}
    return {
        "like": like.slug,
        "name": f"{like.name} (copy)"[:100],
        "base_model": like.base_model,
        "system_prompt": like.system_prompt,
        "guidelines": like.guidelines,
    }


def form_page(
    request: HtmxHttpRequest, form: NewProjectForm, like: Project | None, status: int = 200
) -> HttpResponseBase:
    context = {"form": form, "like": like}
    return render(request, "serving/new_project.html", context, status=status)
