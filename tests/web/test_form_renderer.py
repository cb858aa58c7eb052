"""Form fields have the same markup on every page."""

import re
from pathlib import Path

from django import forms
from django.conf import settings

TEMPLATES = Path(settings.BASE_DIR) / "templates"


class Sample(forms.Form):
    name = forms.CharField(help_text="As on the invoice.")
    agree = forms.BooleanField(label="I agree", required=False)


def test_field_has_label_help_and_errors_beside_it() -> None:
    group = Sample({"name": ""})["name"].as_field_group()
    assert '<label for="id_name">Name</label>' in group
    assert 'id="id_name_helptext">As on the invoice.' in group
    assert "This field is required." in group
    assert "id_name_helptext" in re.search(r'aria-describedby="([^"]+)"', group).group(1)  # type: ignore[union-attr]
    assert 'aria-invalid="true"' in group


def test_checkbox_is_inside_its_label() -> None:
    group = Sample()["agree"].as_field_group()
    assert re.search(r'<label class="check">\s*<input type="checkbox"', group)


def test_templates_render_fields_only_with_the_renderer() -> None:
    for path in TEMPLATES.rglob("*.html"):
        assert "_components/field.html" not in path.read_text(), path
