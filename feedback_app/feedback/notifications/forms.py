"""The form with which a member chooses notifications."""

from django import forms

from feedback_app.feedback.models.notifications import (
    DEFAULT_LISTED,
    NotificationChoice,
    NotificationKind,
)
from feedback_app.web.forms import StrictForm

KINDS = NotificationKind.choices


class ChoiceForm(StrictForm):
    """Kinds of notifications, by where they are delivered."""

    listed = forms.MultipleChoiceField(choices=KINDS, required=False, label="In the app")
    mailed = forms.MultipleChoiceField(choices=KINDS, required=False, label="By e-mail")

    @classmethod
    def of(cls, choice: NotificationChoice | None) -> "ChoiceForm":
        """Return the form that shows a member's choice."""
        listed, mailed = (DEFAULT_LISTED, ()) if choice is None else (choice.listed, choice.mailed)
        return cls(initial={"listed": list(listed), "mailed": list(mailed)})

    @property
    def rows(self) -> list[tuple[str, str, bool, bool]]:
        """Return (value, label, listed, mailed) of each kind."""
        listed, mailed = (self[name].value() or [] for name in ("listed", "mailed"))
        return [(value, label, value in listed, value in mailed) for value, label in KINDS]
