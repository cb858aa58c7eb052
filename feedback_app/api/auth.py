"""Authentication of API requests: token, rate limit and scope."""

from django.http import HttpRequest
from ninja.security import HttpBearer

from feedback_app.accounts.models import ApiToken, Scope
from feedback_app.accounts.tokens import token_find, token_use
from feedback_app.api.errors import ApiError, expired, unauthorised
from feedback_app.feedback.access import ARCHIVED, SAFE


class ApiRequest(HttpRequest):
    """An authenticated request. There is no session: cookies are never read."""

    auth: ApiToken


class BearerToken(HttpBearer):
    """Accepts requests whose token has `scope`; None accepts any token."""

    def __init__(self, scope: Scope | None) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, secret: str) -> ApiToken:
        token = token_find(secret.strip())
        if token is None:
            raise unauthorised()
        if token.expired:
            raise expired(token)
        if wait := token_use(token):
            raise ApiError(
                429,
                f"This token has reached its requests per minute: wait {wait} seconds.",
                "rate_limit_exceeded",
                "rate_limit_error",
                retry_after=wait,
            )
        if token.project.archived_at and request.method not in SAFE:
            raise ApiError(403, ARCHIVED, "project_archived", "permission_error")
        if self.scope is not None and self.scope not in token.scopes:
            raise ApiError(
                403,
                f"This token lacks the scope '{self.scope.value}'. Scopes cannot be changed: "
                "create another token.",
                "insufficient_scope",
                "permission_error",
            )
        return token
