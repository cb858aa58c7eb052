"""Template lines stay short enough to read and to compare."""

from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR) / "templates"
LONGEST_LINE = 160
#: Patterns below templates/ whose lines are short; others still have long lines.
SHORT_LINES = ("*.html", "_components/**/*.html", "feedback/**/*.html")


@pytest.mark.parametrize("pattern", SHORT_LINES)
def test_template_lines_are_short(pattern: str) -> None:
    templates = list(ROOT.glob(pattern))
    assert templates
    long_lines = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} characters"
        for path in templates
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > LONGEST_LINE
    ]
    assert long_lines == []
