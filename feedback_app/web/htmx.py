"""The type of requests that htmx may send."""

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails

from feedback_app.accounts.models import Membership, User


class HtmxHttpRequest(HttpRequest):
    """A request of a signed-in user; `htmx` is truthy if htmx sent it."""

    htmx: HtmxDetails
    user: User
    #: set by project_view
    membership: Membership
    #: set by project_view: whether the person gets no items until an admin lifts their pause
    paused: bool
    #: set by project_view: who can restore an archived project, for its admins
    owners: list[User]
