"""Forms for the erasure of a person."""

from typing import Any

from django import forms

from feedback_app.accounts.models import User
from feedback_app.web.forms import StrictForm


class EraseForm(StrictForm):
    """Confirms an erasure, which cannot be undone, by typing the address."""

    email = forms.CharField(max_length=254)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if email.strip().lower() != self.user.email:
            raise forms.ValidationError(f"type {self.user.email} to erase this person.")
        return email


class ApiPersonForm(StrictForm):
    """A user of the product, by the id that it sends."""

    name = forms.CharField(max_length=200, strip=False)
