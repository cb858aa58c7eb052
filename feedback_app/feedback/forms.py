"""What a request may contain. Unknown fields are errors: nobody sets what no form asks for."""

from typing import Any, ClassVar

from django import forms
from django.http import HttpRequest

from feedback_app.accounts.models import Scope
from feedback_app.feedback.errors import BadRequest
from feedback_app.feedback.models import Project, Verdict
from feedback_app.feedback.reasons import chips_read, chips_text


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


def accepted(form: StrictForm) -> dict[str, Any]:
    """The form's cleaned values. Raises BadRequest with every fault."""
    if not form.is_valid():
        raise BadRequest(form.faults())
    return dict(form.cleaned_data)


class NoFields(StrictForm):
    """For deeds that need nothing but their address."""


class UploadForm(StrictForm):
    """A file to import."""

    file = forms.FileField(max_length=1_000)


class Shared(dict[str, forms.Field]):
    """The fields of a form that changes none of them: others are copied for each request."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        return self


class VoteForm(StrictForm):
    """A verdict. `chips` says that the reasons are meant as they stand, even if there are none."""

    verdict = forms.ChoiceField(choices=Verdict.choices)
    reasons = forms.Field(required=False)
    chips = forms.BooleanField(required=False)
    comment = forms.CharField(required=False)

    def reasons_given(self) -> list[str] | None:
        """The chips that were sent, or None to leave them as they are."""
        given = list(self.data.getlist("reasons"))
        return given if given or self.cleaned_data["chips"] else None

    def comment_given(self) -> str | None:
        return self.cleaned_data["comment"] or None


VoteForm.base_fields = Shared(VoteForm.base_fields)


class SkipForm(StrictForm):
    """Passing an item by. What stands in the comment beside it is the reason, if there is one."""

    flag = forms.BooleanField(required=False)
    reason = forms.CharField(required=False, max_length=200)
    comment = forms.CharField(required=False)

    def why(self) -> str:
        """What the person gave as the reason."""
        return str(self.cleaned_data["reason"] or self.cleaned_data["comment"])


class SamplingForm(StrictForm):
    """Asks for answers to every prompt."""

    answers_per_prompt = forms.IntegerField(
        min_value=1, max_value=8, initial=2, label="Answers a prompt"
    )
    version = forms.CharField(label="Version", required=False)


class TokenForm(StrictForm):
    """A new API token."""

    name = forms.CharField(
        max_length=60, label="Name", help_text="Where it will be used, for example 'Help centre'."
    )
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=[Scope.CHAT, Scope.FEEDBACK],
        label="May be used for",
        widget=forms.CheckboxSelectMultiple,
    )


class ProjectForm(StrictFields, forms.ModelForm[Project]):
    """What an admin may change of a project. Its slug and base model are for life."""

    reasons_down = forms.CharField(
        required=False,
        label="Reasons for a thumb down",
        help_text="One a line, key: label. Votes keep the key, so a label may be worded anew.",
        widget=forms.Textarea(attrs={"rows": 5}),
    )
    reasons_up = forms.CharField(
        required=False, label="Reasons for a thumb up", widget=forms.Textarea(attrs={"rows": 5})
    )

    class Meta:
        model = Project
        fields: ClassVar = [
            "name",
            "system_prompt",
            "guidelines",
            "overlap",
            "queue_order",
            "max_tokens",
            "temperature",
            "top_p",
        ]
        labels: ClassVar = {
            "overlap": "Votes an answer",
            "queue_order": "Order at the desk",
            "max_tokens": "Longest answer",
            "top_p": "Top-p",
        }
        help_texts: ClassVar = {
            "system_prompt": "Goes before every conversation, in sampling, training and the demo.",
            "guidelines": "Markdown. Annotators see it beside every answer.",
            "overlap": "How many people judge each answer, 1 to 10.",
            "queue_order": "Every answer gets its first vote before any gets its second.",
            "max_tokens": "Tokens; one is about three quarters of a word.",
            "temperature": "0 always takes the likeliest token; 0.8 varies.",
            "top_p": "Samples from the likeliest tokens that make up this share.",
        }
        widgets: ClassVar = {
            "system_prompt": forms.Textarea(attrs={"rows": 3}),
            "guidelines": forms.Textarea(attrs={"rows": 12}),
            "overlap": forms.NumberInput(attrs={"min": 1, "max": 10}),
            "max_tokens": forms.NumberInput(attrs={"min": 1, "max": 2048}),
            "temperature": forms.NumberInput(attrs={"min": 0, "max": 2, "step": "any"}),
            "top_p": forms.NumberInput(attrs={"min": 0.01, "max": 1, "step": "any"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for verdict in Verdict.values:
            chips = self.instance.reasons.get(verdict, [])
            self.initial[f"reasons_{verdict}"] = chips_text(chips)

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        values = super().clean() or self.cleaned_data
        limits = {"max_tokens": (1, 2048), "temperature": (0, 2), "top_p": (0.01, 1)}
        for name, (low, high) in limits.items():
            value = values.get(name)
            if value is not None and not low <= value <= high:
                self.add_error(name, f"Choose {low:g} to {high:g}.")
        values["reasons"] = {}
        for verdict in Verdict.values:
            field = f"reasons_{verdict}"
            text = values.pop(field, "")
            try:
                # a program that does not know the field does not mean to empty it
                text = text if field in self.data else self.initial[field]
                values["reasons"][verdict] = chips_read(text)
            except ValueError as error:
                self.add_error(field, str(error))
        return values


def query_choice(request: HttpRequest, name: str, allowed: tuple[str, ...]) -> str:
    """A query parameter that must be one of `allowed`; the first is the default."""
    value = request.GET.get(name) or allowed[0]
    if value not in allowed:
        raise BadRequest(f"{name} must be one of: {', '.join(filter(None, allowed))}.")
    return value


def query_strict(request: HttpRequest, allowed: tuple[str, ...]) -> None:
    """Refuses query parameters that the page does not know."""
    if unknown := sorted(set(request.GET) - set(allowed)):
        raise BadRequest(f"Unknown parameters: {', '.join(unknown)}.")


def query_page(request: HttpRequest) -> int:
    """The page number of a list, 1 unless given."""
    value = request.GET.get("page", "1")
    if not value.isdecimal() or len(value) > 6:
        raise BadRequest("page must be a number.")
    return int(value)
