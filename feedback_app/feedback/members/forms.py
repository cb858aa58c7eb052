"""Forms for roles, invitations and joining."""

from typing import Any

from django import forms
from django.contrib.auth.password_validation import validate_password

from feedback_app.accounts.models import Role, User
from feedback_app.web.forms import StrictForm


class RoleForm(StrictForm):
    """A member's new role."""

    role = forms.ChoiceField(choices=Role.choices)


class InvitationForm(StrictForm):
    """A new invitation; the form offers the roles that its creator may give."""

    role = forms.ChoiceField(label="Role")
    email = forms.EmailField(
        label="E-mail address",
        required=False,
        help_text="Optional. The link is sent there and works for it only.",
    )
    days = forms.IntegerField(min_value=1, max_value=90, initial=7, label="Valid for (days)")
    max_uses = forms.IntegerField(
        min_value=1,
        max_value=500,
        initial=1,
        label="People",
        help_text="How many people may join with it.",
    )

    def __init__(self, *args: Any, roles: list[Role], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = [(role.value, role.label) for role in roles]
        self.fields["role"].initial = Role.ANNOTATOR


class JoinForm(StrictForm):
    """An account for an invited person."""

    email = forms.EmailField(
        label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "username"})
    )
    name = forms.CharField(
        max_length=100,
        required=False,
        label="Name",
        help_text="Shown to other members. Optional.",
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    password = forms.CharField(
        label="Password",
        help_text="At least 8 characters.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        if values.get("password"):
            person = User(email=values.get("email", ""), name=values.get("name", ""))
            try:
                validate_password(values["password"], person)
            except forms.ValidationError as error:
                self.add_error("password", error)
        return values
