"""Forms and query parameters that error_response what they do not know."""

from typing import Any

from django import forms
from django.http import HttpRequest

from feedback_app.web.errors import UserError


class StrictFields:
    """For forms: refuses keys that are no field, and describes the fields to screen readers."""

    data: Any
    fields: Any
    errors: Any
    prefix: str | None

    def unknown(self) -> list[str]:
        return sorted(set(self.data) - set(self.fields) - {"csrfmiddlewaretoken"})

    def faults(self) -> str:
        """Every fault in one sentence each."""
        return " ".join(
            f"{name}: {' '.join(errors)}" if name != "__all__" else " ".join(errors)
            for name, errors in self.errors.items()
        )


class StrictForm(StrictFields, forms.Form):
    """A form that knows all keys that may be sent."""

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        return super().clean() or {}


def validated(form: StrictForm) -> dict[str, Any]:
    """The form's cleaned values. Raises UserError with every fault."""
    if not form.is_valid():
        raise UserError(form.faults())
    return dict(form.cleaned_data)


class NoFields(StrictForm):
    """For deeds that need nothing but their address."""


class SharedFields(dict[str, forms.Field]):
    """The fields of a form that changes none of them: others are copied for each request."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedFields":
        return self


def query_choice(request: HttpRequest, name: str, allowed: tuple[str, ...]) -> str:
    """A query parameter that must be one of `allowed`; the first is the default."""
    value = request.GET.get(name) or allowed[0]
    if value not in allowed:
        raise UserError(f"{name} must be one of: {', '.join(filter(None, allowed))}.")
    return value


def query_strict(request: HttpRequest, allowed: tuple[str, ...]) -> None:
    """Refuses query parameters that the page does not know."""
    if unknown := sorted(set(request.GET) - set(allowed)):
        raise UserError(f"Unknown parameters: {', '.join(unknown)}.")


def query_page(request: HttpRequest) -> int:
    """The page number of a list, 1 unless given."""
    value = request.GET.get("page", "1")
    if not value.isdecimal() or len(value) > 6:
        raise UserError("page must be a number.")
    return int(value)
