"""Links to the state of erasures, for people who have no account any more."""

from collections.abc import Iterable

from django.core import signing
from django.urls import reverse

from feedback_app.training.models import Erasure

SALT = "prospect.erasure"


def erasure_link(erasures: Iterable[Erasure]) -> str:
    """Return the address of the page; it needs no sign-in. The link is signed, and
    nothing is stored."""
    secret = signing.dumps([erasure.pk for erasure in erasures], salt=SALT)
    return reverse("erasure-status", args=[secret])


def erasures_of(secret: str) -> list[Erasure]:
    """Return the erasures of a link, none if it is not ours."""
    try:
        numbers = signing.loads(secret, salt=SALT)
    except signing.BadSignature:
        return []
    return list(
        Erasure.objects.filter(pk__in=numbers).select_related("project").order_by("project", "pk")
    )
