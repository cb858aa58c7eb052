"""The form that maps a file's columns and labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from feedback_app.feedback.imports.mapping import FIELDS, chosen_for, columns_of, labels_of
from feedback_app.feedback.imports.recognition import Labels
from feedback_app.feedback.models import ImportJob
from feedback_app.web.errors import UserError
from feedback_app.web.forms import StrictForm

WORDS = 500  # characters


class ColumnsForm(StrictForm):
    """The file's column for each of our fields, and the labels that mean up and down."""

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, job: ImportJob, names: Sequence[str]
    ) -> None:
        initial = {
            field: chosen_for(field, columns=job.columns, names=names) for field in FIELDS
        } | {"up": ", ".join(job.labels_up), "down": ", ".join(job.labels_down)}
        super().__init__(data, initial=initial)
        self.names = names
        choices = [("", "not in the file"), *((name, name) for name in names)]
        for field, said in FIELDS.items():
            self.fields[field] = forms.ChoiceField(
                label=field.capitalize(), help_text=said, required=False, choices=choices
            )
        for verdict, known in (("up", "true, yes, 1, good"), ("down", "false, no, 0, bad")):
            self.fields[verdict] = forms.CharField(
                label=f"Labels that mean {verdict}",
                help_text=f"In addition to {known}, separated by commas.",
                required=False,
                max_length=WORDS,
                widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
            )

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        try:
            self.labels()
        except UserError as error:
            raise forms.ValidationError(str(error)) from error
        return values

    def columns(self) -> dict[str, str]:
        """Return the column mapping for the import."""
        return columns_of(self.cleaned_data, self.names)

    def labels(self) -> Labels:
        """Return the file's own labels. Raise UserError."""
        said = {each: self.cleaned_data.get(each, "").split(",") for each in ("up", "down")}
        up, down = ([word for word in map(str.strip, said[e]) if word] for e in ("up", "down"))
        return labels_of(up, down)


class UploadForm(StrictForm):
    """A file to import."""

    file = forms.FileField(max_length=1_000)
