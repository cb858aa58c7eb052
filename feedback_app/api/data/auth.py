"""Which project a request is about, and what its token must be allowed to do."""

from typing import Any

from pydantic import BaseModel

from feedback_app.accounts.models import Scope
from feedback_app.api.auth import ApiRequest, BearerToken
from feedback_app.api.errors import ApiFault
from feedback_app.api.gateway.schemas import FaultAnswer
from feedback_app.feedback.models import Project

READ = BearerToken(Scope.DATA_READ)
WRITE = BearerToken(Scope.DATA_WRITE)
FAULTS: dict[int, Any] = dict.fromkeys((400, 401, 403, 404, 409, 413, 429), FaultAnswer)
HERE = "/projects/{slug}"


def project_of(request: ApiRequest, slug: str, query: type[BaseModel] | None = None) -> Project:
    """The token's project, if that is what the address names; else 404, whatever else exists.
    Unknown query parameters are refused."""
    project = request.auth.project
    if project.slug != slug:
        raise ApiFault(404, "This token opens no such project.", "not_found")
    allowed = set(query.model_fields) if query else set()
    if strange := sorted(set(request.GET) - allowed):
        raise ApiFault(
            400,
            f"Unknown parameters: {', '.join(strange)}.",
            "unknown_parameter",
            param=strange[0],
        )
    return project
