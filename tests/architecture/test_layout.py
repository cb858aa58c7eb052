"""Packages have few modules, and modules are named for what they do."""

import re
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
PARTS = ("feedback_app", "trainer", "artifact_store", "tools", "bench")
#: Modules and subpackages on one level: about as many as a reader can survey.
MOST_MODULES = 15
#: A layer is a module in a capability's package, never a prefix or suffix of a module's name.
LAYERS = ("views", "services", "forms", "models", "selectors", "tasks", "urls")
VAGUE = {"utils", "helpers", "common", "misc"}


def modules() -> list[Path]:
    return [
        path
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if "migrations" not in path.parts
    ]


def test_packages_have_few_modules_on_one_level() -> None:
    levels: dict[Path, int] = {}
    for path in modules():
        if path.name != "__init__.py":
            levels[path.parent] = levels.get(path.parent, 0) + 1
    assert len(levels) > 50
    crowded = {str(p.relative_to(ROOT)): n for p, n in levels.items() if n > MOST_MODULES}
    assert crowded == {}


def test_modules_carry_no_layer_in_their_names() -> None:
    layered = re.compile(rf"^({'|'.join(LAYERS)})_|_({'|'.join(LAYERS)})$")
    assert [str(p.relative_to(ROOT)) for p in modules() if layered.search(p.stem)] == []


def test_modules_are_named_for_their_job() -> None:
    assert [path for path in modules() if path.stem in VAGUE] == []
