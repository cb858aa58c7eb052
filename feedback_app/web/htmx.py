"""The typed request of views that htmx calls, and nothing else."""

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails

from feedback_app.accounts.models import Membership, User


class HtmxHttpRequest(HttpRequest):
    """A request of a signed-in person; `htmx` is true when htmx sent it."""

    htmx: HtmxDetails
    user: User
    #: set by project_view: the role that let the person in
    membership: Membership
    #: set by project_view: whether an admin has to let them judge again
    paused: bool
