"""Who may come in: the token, how often it comes, and what it may be used for."""

from django.http import HttpRequest
from ninja.security import HttpBearer

from feedback_app.accounts.models import ApiToken, Scope
from feedback_app.accounts.tokens import token_find, token_use
from feedback_app.api.errors import ApiFault, unauthorised


class ApiRequest(HttpRequest):
    """A request that was let in. There is no session: cookies are never looked at."""

    auth: ApiToken


class BearerToken(HttpBearer):
    """Lets in requests whose token has `scope`; None for those that any token may make."""

    def __init__(self, scope: Scope | None) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, secret: str) -> ApiToken:
        token = token_find(secret.strip())
        if token is None:
            raise unauthorised()
        if wait := token_use(token):
            raise ApiFault(
                429,
                f"This token has made its requests of this minute: wait {wait} seconds.",
                "rate_limit_exceeded",
                "rate_limit_error",
                retry_after=wait,
            )
        if self.scope is not None and self.scope not in token.scopes:
            raise ApiFault(
                403,
                f"This token lacks the scope '{self.scope.value}'. Scopes are for life: make "
                "another token.",
                "insufficient_scope",
                "permission_error",
            )
        return token
