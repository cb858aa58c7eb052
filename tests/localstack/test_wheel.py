"""The wheel that `pip install` takes: complete, with its commands, away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = pytest.mark.long

ROOT = Path(settings.BASE_DIR)
BUILT_FROM = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"),
    *("Procfile", "manage.py", "feedback_app", "trainer", "artifact_store"),
    *("templates", "static", "tools"),
)
FOUND = """
import json, pathlib, feedback_app, trainer
from django.conf import settings
from django.contrib.staticfiles import finders
from django.template.loader import get_template
from feedback_app.feedback.projects.starter import starter_prompts
for template in pathlib.Path(settings.BASE_DIR, "templates").rglob("*.html"):
    get_template(str(template.relative_to(pathlib.Path(settings.BASE_DIR, "templates"))))
print(json.dumps({
    "code": [feedback_app.__path__[0], trainer.__path__[0]],
    "var": str(settings.VAR),
    "script": finders.find("js/app.js"),
    "prompts": len(list(starter_prompts())),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the wheel was installed to, without its dependencies."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "dist")]
    subprocess.run([*pip, *build, str(source)], check=True, capture_output=True)
    [wheel] = (source / "dist").glob("prospect-*.whl")
    install = ["install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    return target


def run(installed: Path, tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run an installed command in an empty directory, with the environment's dependencies."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, str(installed / "bin" / command[0]), *command[1:]],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_has_both_commands_and_their_version(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "prospect", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prospect 0.")
    assert "usage: prospect demo" in run(installed, tmp_path, "prospect").stdout
    unknown = run(installed, tmp_path, "prospect", "dmeo")
    assert unknown.returncode == 2
    assert "unknown command 'dmeo'" in unknown.stderr
    assert "train the run" in run(installed, tmp_path, "prospect-trainer", "--help").stdout


def test_wheel_carries_templates_static_files_and_starter_data(
    installed: Path, tmp_path: Path
) -> None:
    done = run(installed, tmp_path, "prospect", "manage", "shell", "--no-imports", "-c", FOUND)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(path.startswith(str(installed)) for path in found["code"])
    assert found["script"].startswith(str(installed))
    assert found["var"] == str(tmp_path.resolve() / "var")
    assert found["prompts"] > 100


def test_wheel_makes_tables_and_collects_static_files(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "prospect", "manage", "prepare", "--starter")
    assert done.returncode == 0, done.stderr
    assert "annotator@example.com" in done.stdout
    assert (tmp_path / "var" / "static" / "staticfiles.json").exists()
