"""What can happen to a project's API tokens, and who votes through them."""

from collections.abc import Sequence

from django.db import IntegrityError, transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import ApiPerson, ApiToken, Scope, User
from feedback_app.accounts.tokens import PREFIX_LENGTH, digest_of, secret_new
from feedback_app.feedback.models import Project


def token_create(
    *, project: Project, name: str, scopes: Sequence[Scope], by: User
) -> tuple[ApiToken, str]:
    """A new token and its secret, which nobody can read again."""
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
        )
        audit(project=project, actor=by, action="token.create", target=str(token))
    return token, secret


def token_revoke(*, token: ApiToken, by: User) -> bool:
    """Ends a token for good, streams in progress included; False if it was over before."""
    with transaction.atomic():
        ended = ApiToken.objects.valid().filter(pk=token.pk).update(revoked_at=timezone.now())
        if ended:
            audit(project=token.project, actor=by, action="token.revoke", target=str(token))
    return bool(ended)


def voter_of(*, token: ApiToken, name: str | None) -> User:
    """Who casts a vote that comes with this token: the token itself, or the person it names.

    Names belong to the project, not to the token: a new token changes nobody's earlier votes into
    a stranger's.
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
