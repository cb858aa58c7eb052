"""The form for a new API token."""

import datetime as dt
from typing import Any

from django import forms
from django.utils import timezone

from feedback_app.accounts.models import Scope
from feedback_app.web.forms import StrictForm


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
    last_day = forms.DateField(
        required=False,
        label="Last day",
        help_text="The token works until the end of this day (UTC). Empty: until it is revoked.",
        widget=forms.DateInput(attrs={"type": "date"}),
    )

    def clean_last_day(self) -> Any:
        day: dt.date | None = self.cleaned_data["last_day"]
        if day is not None and day < timezone.now().date():
            raise forms.ValidationError("Choose today or a later day.")
        return day

    @property
    def expires_at(self) -> dt.datetime | None:
        """The moment from which a token with these values is refused."""
        day: dt.date | None = self.cleaned_data["last_day"]
        if day is None:
            return None
        return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)
