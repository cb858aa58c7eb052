"""The house keeps its shape: small modules, one word for a thing."""

import re
from pathlib import Path

from django.apps import apps
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
LONGEST = 400
VAGUE = {"utils", "helpers", "common", "misc"}


def modules() -> list[Path]:
    return [
        path
        for part in ("feedback_app", "trainer", "tools", "bench")
        for path in (ROOT / part).rglob("*.py")
        if "migrations" not in path.parts
    ]


def test_modules_stay_short() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in modules()}
    assert {name: lines for name, lines in long.items() if lines > LONGEST} == {}


def test_modules_are_named_for_their_job() -> None:
    assert [path for path in modules() if path.stem in VAGUE] == []


def test_models_have_no_name_that_the_glossary_bans() -> None:
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \|.+\| (.+?) \|$",
        (ROOT / "docs" / "glossary.md").read_text(),
        re.MULTILINE,
    )
    used = {word.lower() for words, _ in rows for word in re.split(r"\W+", words)}
    banned = {word.strip().lower() for _, words in rows for word in words.split(",")} - used
    assert len(rows) > 15
    names = {
        model.__name__.lower() for model in apps.get_models() if "feedback_app" in model.__module__
    }
    assert len(names) > 10
    assert names & banned == set()
