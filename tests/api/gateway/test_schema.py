"""The gateway conforms to its own OpenAPI schema for valid and invalid requests.

Schemathesis reads `/v1/openapi.json`, generates valid and invalid requests, and checks every
answer against it: statuses, schemas, content types, authentication.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import hypothesis
import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import strategies as st
from pytest_django import Settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create
from tests.api.gateway_client import CHAT, FEEDBACK, Program

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@cache
def schema() -> Any:
    return schemathesis.openapi.from_wsgi("/v1/openapi.json", get_wsgi_application())


@pytest.fixture
def program(served: Project, admin: User, settings: Settings) -> Program:
    settings.API_REQUESTS_PER_MINUTE = 1_000_000
    return Program(*token_create(project=served, name="Shop", scopes=list(Scope), by=admin))


@pytest.fixture
def one_connection() -> Iterator[None]:
    """Keep the connection open after a request, so that requests share the test's transaction."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.usefixtures("one_connection")
@pytest.mark.parametrize(
    ("path", "method"), [("/v1/models", "GET"), (CHAT, "POST"), (FEEDBACK, "POST")]
)
@hypothesis.settings(
    max_examples=8, suppress_health_check=[*hypothesis.HealthCheck], derandomize=True
)
@hypothesis.given(data=st.data())
def test_gateway_conforms_to_its_schema(
    path: str, method: str, data: st.DataObject, program: Program
) -> None:
    case = data.draw(schema()[path][method].as_strategy())
    if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
        case.body["max_tokens"] = min(case.body["max_tokens"], 4)
    # the schema cannot express that the last message is the user's, nor that some text is needed
    excluded = [positive_data_acceptance] if path == CHAT else []
    response = case.call_and_validate(headers=program.headers, excluded_checks=excluded)
    documented = schema()[path][method].definition.raw["responses"]
    assert str(response.status_code) in {str(status) for status in documented}
