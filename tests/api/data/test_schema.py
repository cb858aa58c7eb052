"""The data API conforms to its own OpenAPI schema for valid and invalid requests.

Schemathesis generates the requests and applies all its checks to the answers; a valid request may
be refused for what a schema cannot express: an id that does not exist, a prompt that must end
with the user's message.
"""

from contextlib import closing
from functools import cache
from typing import Any

import hypothesis
import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import strategies as st
from pytest_django import Settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create
from tests.api.gateway.test_schema import one_connection
from tests.api.gateway_client import Program

__all__ = ["one_connection"]
pytestmark = [pytest.mark.django_db, pytest.mark.slow]
HERE = "/api/v1/projects/{slug}"
OPERATIONS = [
    *[(f"{HERE}/{what}", "GET") for what in ("prompts", "completions", "votes", "examples")],
    *[(f"{HERE}/{what}/{{pk}}", "GET") for what in ("prompts", "completions", "votes", "examples")],
    *[(f"{HERE}/{what}", "POST") for what in ("prompts", "completions", "votes")],
    (f"{HERE}/imports", "GET"),
    (f"{HERE}/imports", "POST"),
    (f"{HERE}/imports/{{pk}}", "GET"),
    (f"{HERE}/imports/{{pk}}/refused", "GET"),
    (f"{HERE}/imports/{{pk}}/stop", "POST"),
    (f"{HERE}/export", "GET"),
]


@cache
def application() -> Any:
    return get_wsgi_application()


def read_to_the_end(environ: Any, start_response: Any) -> list[bytes]:
    """Close the response as a web server does; schemathesis' client leaves it open."""
    response = application()(environ, start_response)
    with closing(response):
        return list(response)


@cache
def schema() -> Any:
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", read_to_the_end)


@pytest.fixture
def program(voted_project: Project, admin: User, settings: Settings) -> Program:
    settings.API_REQUESTS_PER_MINUTE = 1_000_000
    return Program(*token_create(project=voted_project, name="S", scopes=list(Scope), by=admin))


def test_every_operation_is_listed_here() -> None:
    paths = schema().raw_schema["paths"]
    operations = {(path, method.upper()) for path, of in paths.items() for method in of}
    assert operations == set(OPERATIONS)


@pytest.mark.usefixtures("one_connection")
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
@hypothesis.settings(
    max_examples=8, suppress_health_check=[*hypothesis.HealthCheck], derandomize=True
)
@hypothesis.given(data=st.data())
def test_data_api_conforms_to_its_schema(
    path: str, method: str, data: st.DataObject, program: Program
) -> None:
    case = data.draw(schema()[path][method].as_strategy())
    # the project of the token, or nothing but 404 would be tested
    case.path_parameters = {**(case.path_parameters or {}), "slug": program.token.project.slug}
    response = case.call_and_validate(
        headers=program.headers, excluded_checks=[positive_data_acceptance]
    )
    documented = schema()[path][method].definition.raw["responses"]
    assert str(response.status_code) in {str(status) for status in documented}
