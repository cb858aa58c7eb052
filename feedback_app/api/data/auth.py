"""The project of a request and the scopes of its token."""

from typing import Any

from pydantic import BaseModel

from feedback_app.accounts.models import Scope
from feedback_app.api.auth import ApiRequest, BearerToken
from feedback_app.api.errors import ApiError
from feedback_app.api.gateway.schemas import FaultAnswer
from feedback_app.feedback.models import Project

READ = BearerToken(Scope.DATA_READ)
WRITE = BearerToken(Scope.DATA_WRITE)
FAULTS: dict[int, Any] = dict.fromkeys((400, 401, 403, 404, 409, 413, 429), FaultAnswer)
HERE = "/projects/{slug}"


def project_of(request: ApiRequest, slug: str, query: type[BaseModel] | None = None) -> Project:
    """Return the token's project if the URL names it. Raises ApiError 404 for any other project,
    and 400 for unknown query parameters."""
    project = request.auth.project
    if project.slug != slug:
        raise ApiError(404, "This token has no access to such a project.", "not_found")
    allowed = set(query.model_fields) if query else set()
    if unknown := sorted(set(request.GET) - allowed):
        raise ApiError(
            400,
            f"Unknown parameters: {', '.join(unknown)}.",
            "unknown_parameter",
            param=unknown[0],
        )
    return project
