"""Forms about people: roles, invitations, and joining by one."""

from typing import Any

from django import forms
from django.contrib.auth.password_validation import validate_password

from feedback_app.accounts.models import Role, User
from feedback_app.web.forms import StrictForm


class RoleForm(StrictForm):
    """Another role for a member."""

    role = forms.ChoiceField(choices=Role.choices)


class InvitationForm(StrictForm):
    """A new link. The roles on offer are those that its maker may give."""

    role = forms.ChoiceField(label="Role")
    email = forms.EmailField(
        label="E-mail address",
        required=False,
        help_text="Optional. Then the link is for this address only, and is sent there.",
    )
    days = forms.IntegerField(min_value=1, max_value=90, initial=7, label="Days it is open")
    max_uses = forms.IntegerField(
        min_value=1, max_value=500, initial=1, label="People", help_text="Who may join with it."
    )

    def __init__(self, *args: Any, roles: list[Role], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = [(role.value, role.label) for role in roles]
        self.fields["role"].initial = Role.ANNOTATOR


class JoinForm(StrictForm):
    """An account for somebody who was invited."""

    email = forms.EmailField(
        label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "username"})
    )
    name = forms.CharField(
        max_length=100,
        required=False,
        label="Name",
        help_text="What the others in the project see. Optional.",
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    password = forms.CharField(
        label="Password",
        help_text="Eight characters or more.",
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
