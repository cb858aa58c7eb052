"""Forms and query parameters that reject unknown keys."""

from typing import Any

from django import forms
from django.http import HttpRequest

from feedback_app.web.errors import UserError


class StrictFields:
    """Mixin for forms: reports unknown keys, and all errors as one text."""

    data: Any
    fields: Any
    errors: Any
    prefix: str | None

    def unknown(self) -> list[str]:
        return sorted(set(self.data) - set(self.fields) - {"csrfmiddlewaretoken"})

    def errors_text(self) -> str:
        """Return all errors as one text, with their fields' names."""
        return " ".join(
            f"{name}: {' '.join(errors)}" if name != "__all__" else " ".join(errors)
            for name, errors in self.errors.items()
        )


class StrictForm(StrictFields, forms.Form):
    """A form that rejects keys that are no field."""

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        return super().clean() or {}


def validated(form: StrictForm) -> dict[str, Any]:
    """Return the form's cleaned values. Raise UserError with every error."""
    if not form.is_valid():
        raise UserError(form.errors_text())
    return dict(form.cleaned_data)


class NoFields(StrictForm):
    """A form for actions without parameters."""


class SharedFields(dict[str, forms.Field]):
    """Fields that all instances of a form share instead of copying them for each request."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedFields":
        return self


def query_choice(request: HttpRequest, name: str, allowed: tuple[str, ...]) -> str:
    """Return a query parameter that must be one of `allowed`; the first is the default.

    Raise UserError for any other value.
    """
    value = request.GET.get(name) or allowed[0]
    if value not in allowed:
        raise UserError(f"{name} must be one of: {', '.join(filter(None, allowed))}.")
    return value


def query_strict(request: HttpRequest, allowed: tuple[str, ...]) -> None:
    """Raise UserError for query parameters that the page does not know."""
    if unknown := sorted(set(request.GET) - set(allowed)):
        raise UserError(f"Unknown parameters: {', '.join(unknown)}.")


def query_number(request: HttpRequest, name: str, *, default: str = "") -> int:
    """Return a query parameter that must be a whole number. Raise UserError for anything else."""
    value = request.GET.get(name, default)
    if not value.isdecimal() or len(value) > 9:
        raise UserError(f"{name} must be a number.")
    return int(value)


def query_page(request: HttpRequest) -> int:
    """Return the page number of a list, 1 by default. Raise UserError for anything else."""
    value = request.GET.get("page", "1")
    if not value.isdecimal() or len(value) > 6:
        raise UserError("page must be a number.")
    return int(value)
