"""The invitation page: join with the present account, another one, or a new one."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from feedback_app.accounts.models import Invitation, User
from feedback_app.accounts.tokens import digest_of
from feedback_app.feedback.members.forms import JoinForm
from feedback_app.feedback.members.oidc import WAITING
from feedback_app.feedback.members.services import invitation_accept, invitation_find, invited_join
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, validated

TEMPLATE = "feedback/invitation.html"


@login_not_required
@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, secret: str) -> HttpResponse:
    """Show the invitation; a POST joins. A link that cannot be used is a 404, which says why."""
    found = invitation_find(secret)
    if found is None:
        if came_in_by(secret, request.user):
            return redirect("home")  # returned from a sign-in, or clicked twice
        return invitation_over(request, secret)
    if not request.user.is_authenticated:
        request.session[WAITING] = found.pk  # an OIDC sign-in returns with it
    if request.method != "POST":
        return invitation_page(request, found, JoinForm(initial={"email": found.email}))
    try:
        return join(request, found)
    except UserError as error:
        form = JoinForm(initial={"email": request.POST.get("email", found.email)})
        return invitation_page(request, found, form, fault=str(error), status=400)


def invitation_over(request: HttpRequest, secret: str) -> HttpResponse:
    """Say why the invitation with this secret cannot be used. Raise Http404 if there is none."""
    known = get_object_or_404(Invitation, digest=digest_of(secret))
    return render(request, "feedback/invitation_over.html", {"state": known.state}, status=404)


def came_in_by(secret: str, user: object) -> bool:
    """Return whether the person is a member of the invitation's project."""
    if not isinstance(user, User):
        return False
    invited = Invitation.objects.filter(digest=digest_of(secret), project__memberships__user=user)
    return invited.exists()


def join(request: HttpRequest, found: Invitation) -> HttpResponse:
    """Accept the invitation. Raise UserError."""
    user = request.user
    if isinstance(user, User):
        validated(NoFields(request.POST))
        invitation_accept(invitation=found, user=user)
    else:
        form = JoinForm(request.POST)
        if not form.is_valid():
            return invitation_page(request, found, form, status=400)
        user = invited_join(invitation=found, **form.cleaned_data)
        login(request, user)
    messages.success(request, f"Welcome to {found.project.name}.")
    return redirect("home")


def invitation_page(
    request: HttpRequest, found: Invitation, form: JoinForm, *, fault: str = "", status: int = 200
) -> HttpResponse:
    here = request.path
    context: dict[str, Any] = {
        "invitation": found,
        "form": form,
        "fault": fault,
        "here": here,
        "sign_in": f"{reverse('account_login')}?next={here}",
    }
    return render(request, TEMPLATE, context, status=status)
