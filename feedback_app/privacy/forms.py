"""Forms about one person: leaving, and being erased."""

from typing import Any

from django import forms

from feedback_app.accounts.models import User
from feedback_app.web.forms import StrictForm


class EraseForm(StrictForm):
    """Erasing cannot be undone: who is meant is typed."""

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
    """One of a product's users, by the name that its code gives them."""

    name = forms.CharField(max_length=200, strip=False)
