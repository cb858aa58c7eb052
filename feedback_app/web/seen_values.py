"""Forms of stored values that two people, or two tabs, may edit at once."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django import forms

from feedback_app.web.errors import Conflict

SEEN = "seen"
CHANGED = (
    "These settings were saved by somebody else, or in another tab, after you opened this page. "
    "Nothing of yours is saved yet: both values are shown below. Check them and save again."
)


class SeenValues(forms.BaseForm):
    """Mixin for forms whose `initial` is what is stored.

    The hidden field `seen` holds a digest of every value that the page showed. A template that
    leaves it out, or a client that omits it, saves without the comparison.
    """

    #: a QueryDict: its copy may be changed
    data: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[SEEN] = forms.CharField(
            required=False,
            max_length=10_000,
            widget=forms.HiddenInput,
            # when it is rendered: subclasses change fields and values after this
            initial=lambda: json.dumps(self._stored_digests()),
        )

    def changes(self) -> dict[str, Any]:
        """Return the cleaned values without `seen`."""
        return {name: value for name, value in self.cleaned_data.items() if name != SEEN}

    def refusal(self) -> int | None:
        """Return the HTTP status to show the form again with; None if it can be saved."""
        if not self.is_valid():
            return 400
        return Conflict.status if self._add_conflicts() else None

    def _add_conflicts(self) -> bool:
        """Add an error to each field whose value was saved after the page was shown; return whether
        there is one.

        The form then shows both values: a field that this person has changed keeps their value,
        another one gets the stored value, and the error of the field names the other value.
        """
        seen = self._seen()
        stored = self._stored_digests()
        moved = [name for name in stored if seen.get(name, stored[name]) != stored[name]]
        self.data = self.data.copy()
        found = False
        for name in moved:
            field, value = self.fields[name], self._stored(name)
            posted = field.widget.value_from_datadict(self.data, self.files, name)
            mine = digest(field, posted)
            if mine == stored[name]:
                continue
            found = True
            if mine == seen[name]:
                self._show(name, value)
                note = f"Changed meanwhile. It was: {shown(field, posted)}"
            else:
                note = f"Saved meanwhile: {shown(field, value)}"
            self.add_error(name, note)
        if found:
            self.data[SEEN] = json.dumps(stored)
            self.add_error(None, CHANGED)
        return found

    def _seen(self) -> Mapping[str, str]:
        try:
            seen = json.loads(self.cleaned_data[SEEN] or "{}")
        except (ValueError, RecursionError):
            return {}
        return seen if isinstance(seen, dict) else {}

    def _stored(self, name: str) -> Any:
        return self.get_initial_for_field(self.fields[name], name)

    def _stored_digests(self) -> dict[str, str]:
        return {
            name: digest(field, self._stored(name))
            for name, field in self.fields.items()
            if name != SEEN
        }

    def _show(self, name: str, value: Any) -> None:
        """Make the bound form show `value` in a field."""
        if value is False:
            self.data.pop(name, None)
        else:
            self.data[name] = "on" if value is True else self.fields[name].prepare_value(value)


def digest(field: forms.Field, value: Any) -> str:
    """Return a digest that is the same for a stored value and the text that a browser sends."""
    try:
        value = field.clean(value)
    except forms.ValidationError:
        value = str(value)
    if isinstance(value, str):
        value = "\n".join(value.splitlines())
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def shown(field: forms.Field, value: Any) -> str:
    """Return a value as people read it."""
    if isinstance(field, forms.BooleanField):
        return "on" if value else "off"
    if isinstance(field, forms.ChoiceField):
        choices: Any = field.choices
        labels = {str(key): str(label) for key, label in choices}
        return labels.get(str(value), str(value))
    return str(value) if value not in ("", None) else "(empty)"
