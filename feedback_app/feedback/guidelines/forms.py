"""The form field of guidelines."""

from typing import Any

from django import forms

#: About ten printed pages; annotators have them beside every answer.
MOST_CHARACTERS = 20_000


class GuidelinesField(forms.CharField):
    """Guidelines of at most MOST_CHARACTERS; a line break counts as one, however it was sent."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"max_length": MOST_CHARACTERS})

    def to_python(self, value: Any) -> str:
        return (super().to_python(value) or "").replace("\r\n", "\n")

    def widget_attrs(self, widget: forms.Widget) -> dict[str, Any]:
        # without `maxlength`, with which browsers cut what is pasted and say nothing
        return {}
