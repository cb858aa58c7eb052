"""Template lines are short enough to read and to compare."""

from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR) / "templates"
LONGEST_LINE = 160


def test_template_lines_are_short() -> None:
    templates = list(ROOT.rglob("*.html"))
    assert len(templates) > 50
    long_lines = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} characters"
        for path in templates
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > LONGEST_LINE
    ]
    assert long_lines == []
