"""API reference for members, generated from the OpenAPI schemas."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from ninja import NinjaAPI

from feedback_app.accounts.models import Role
from feedback_app.api.data.api import api as data_api
from feedback_app.api.gateway.api import api as gateway
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import page


@dataclass(frozen=True)
class Field:
    """A URL parameter or a field of the body."""

    name: str
    kind: str
    required: bool
    note: str


@dataclass(frozen=True)
class Operation:
    """One operation of an API."""

    method: str
    path: str
    says: str
    parameters: list[Field]
    body: list[Field]


@dataclass(frozen=True)
class Described:
    """The reference of one API."""

    title: str
    says: str
    schema_url: str
    operations: list[Operation]


@project_view(Role.VIEWER)
@page
def api_docs(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show every operation with its parameters and fields."""
    query_strict(request, ())
    described = [
        described_of(data_api, "data-api", project, title="Data"),
        described_of(gateway, "gateway", project, title="Chat and feedback"),
    ]
    return render(request, "serving/api.html", {"project": project, "apis": described})


def described_of(api: NinjaAPI, namespace: str, project: Project, *, title: str) -> Described:
    schema = api.get_openapi_schema()
    return Described(
        title=title,
        says=schema["info"]["description"],
        schema_url=reverse(f"{namespace}:openapi-json"),
        operations=list(operations_of(schema, project)),
    )


def operations_of(schema: dict[str, Any], project: Project) -> Iterator[Operation]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parameters = [
                field_of(each["name"], each["schema"], schema, required=each.get("required", False))
                for each in operation.get("parameters", [])
                if each["name"] != "slug"
            ]
            yield Operation(
                method=method.upper(),
                path=path.replace("{slug}", project.slug),
                says=operation.get("description", "").replace("`", ""),
                parameters=parameters,
                body=list(body_of(operation, schema)),
            )


def body_of(operation: dict[str, Any], schema: dict[str, Any]) -> Iterator[Field]:
    """Yield the fields of the body, then those of its list's items under the list's name."""
    content = operation.get("requestBody", {}).get("content", {})
    body = resolved(content.get("application/json", {}).get("schema", {}), schema)
    for name, field in body.get("properties", {}).items():
        yield field_of(name, field, schema, required=name in body.get("required", []))
        inner = resolved(resolved(field, schema).get("items", {}), schema)
        for sub, subfield in inner.get("properties", {}).items():
            required = sub in inner.get("required", [])
            yield field_of(f"{name}[].{sub}", subfield, schema, required=required)


def field_of(name: str, field: dict[str, Any], schema: dict[str, Any], *, required: bool) -> Field:
    return Field(name, kind_of(field, schema), required, field.get("description", ""))


def kind_of(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a field's type as text, such as 'list of text' or '"up" or "down"'."""
    field = resolved(field, schema)
    choices = [each for each in field.get("anyOf", []) if each.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(kind_of(each, schema) for each in choices))
    values = field.get("enum", [field["const"]] if "const" in field else [])
    if values:
        return " or ".join(f"“{value}”" for value in values)
    if field.get("type") == "array":
        kind = kind_of(field.get("items", {}), schema)
        return f"list of {'objects' if kind == 'object' else kind}"
    names = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    kind = str(field.get("type", "object"))
    return names.get(kind, kind)


def resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the field, or the component that it refers to."""
    reference = field.get("$ref", "")
    if not reference:
        return field
    found: dict[str, Any] = schema["components"]["schemas"][reference.rpartition("/")[2]]
    return found
