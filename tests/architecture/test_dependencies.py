"""The packages installed by `make demo` suffice: no product code imports a test dependency."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = pytest.mark.slow

ROOT = Path(settings.BASE_DIR)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"feedback_app", "trainer", "artifact_store"}
#: Packages of extras that the test environment lacks, by what is imported.
NOT_INSTALLED = {"mlflow": "mlflow-skinny", "wandb": "wandb", "ray": "ray"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~ ]", line)[0]) for line in requirements}


def imported(path: Path) -> set[str]:
    """Return the top-level names of everything a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_every_import_is_a_runtime_dependency(package: str) -> None:
    extras = PROJECT["optional-dependencies"]
    runtime = names(
        [
            *PROJECT["dependencies"],
            *extras["cpu"],
            *extras["s3"],
            *extras["sentry"],
            *extras["otel"],
            *extras["reports"],
            *extras["ray"],
        ]
    )
    lacking = {name: [package] for name, package in NOT_INSTALLED.items()}
    providers = lacking | dict(packages_distributions())
    outside = {
        name: path.relative_to(ROOT)
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path) - OURS - set(sys.stdlib_module_names)
    }
    assert outside
    missing = {
        name: str(path)
        for name, path in outside.items()
        if not {canonical(provider) for provider in providers.get(name, [])} & runtime
    }
    assert missing == {}


def test_every_dependency_has_a_tested_version() -> None:
    pinned = names((ROOT / "constraints.txt").read_text().splitlines())
    extras = PROJECT["optional-dependencies"].values()
    declared = names([*PROJECT["dependencies"], *(line for extra in extras for line in extra)])
    assert declared - pinned == set()
