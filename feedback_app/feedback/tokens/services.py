"""API tokens of a project and the users that vote through them."""

import datetime as dt
from collections.abc import Sequence

from django.db import IntegrityError, transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import ApiPerson, ApiToken, Scope, User
from feedback_app.accounts.tokens import PREFIX_LENGTH, digest_of, secret_new
from feedback_app.feedback.models import Project


def token_create(
    *,
    project: Project,
    name: str,
    scopes: Sequence[Scope],
    by: User,
    expires_at: dt.datetime | None = None,
) -> tuple[ApiToken, str]:
    """Return a new token and its secret, which is not stored.

    It is refused from `expires_at` on.
    """
    secret = secret_new()
    with transaction.atomic():
        token = ApiToken.objects.create(
            project=project,
            name=name,
            prefix=secret[:PREFIX_LENGTH],
            digest=digest_of(secret),
            scopes=[str(scope) for scope in scopes],
            user=User.objects.create_service(name=f"Token {name}"),
            created_by=by,
            expires_at=expires_at,
        )
        audit(project=project, actor=by, action="token.create", target=str(token))
    return token, secret


def token_revoke(*, token: ApiToken, by: User | None) -> bool:
    """Revoke a token and end its streams; return False if it was revoked already."""
    with transaction.atomic():
        ended = ApiToken.objects.unrevoked().filter(pk=token.pk).update(revoked_at=timezone.now())
        if ended:
            audit(project=token.project, actor=by, action="token.revoke", target=str(token))
    return bool(ended)


def voter_of(*, token: ApiToken, name: str | None) -> User:
    """Return the user behind a token's vote: the token's own, or the person that it names.

    Names belong to the project, so a new token with the same names continues earlier votes.
    """
    if name is None:
        return token.user
    people = ApiPerson.objects.select_related("user").filter(project=token.project, name=name)
    known = people.first()
    if known is not None:
        return known.user
    try:
        with transaction.atomic():
            user = User.objects.create_service(name=name)
            ApiPerson.objects.create(project=token.project, name=name, user=user)
    except IntegrityError:  # another request was first
        return people.get().user
    return user
