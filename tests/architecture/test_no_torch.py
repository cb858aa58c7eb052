"""The web app and the workers never load the model's libraries, and start without large ones."""

import os
import subprocess
import sys

import pytest
from django.conf import settings

pytestmark = pytest.mark.slow  # each test imports the app in processes of its own

#: Code that a web process and a worker load at start: every view, every task.
START = """
import sys, pkgutil, importlib
import django
django.setup()

from django.urls import get_resolver
def visit(resolver):
    count = 0
    for pattern in resolver.url_patterns:
        count += visit(pattern) if hasattr(pattern, "url_patterns") else bool(pattern.callback)
    return count
views = visit(get_resolver())

from feedback_app.config.celery import app as celery_app
celery_app.loader.import_default_modules()
tasks = [name for name in celery_app.tasks if not name.startswith("celery.")]
"""

EVERY_MODULE = """
import feedback_app
for module in pkgutil.walk_packages(feedback_app.__path__, "feedback_app."):
    importlib.import_module(module.name)
"""


def loaded_of(code: str, packages: tuple[str, ...]) -> list[str]:
    """Return those of `packages` that a new interpreter has loaded after START and `code`."""
    report = f"print(views, len(tasks), *[name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{START}\n{code}\n{report}"],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    views, tasks, *loaded = done.stdout.split()
    assert int(views) > 20, "the URLs must be loaded"
    assert int(tasks) >= 4, "the tasks must be loaded"
    return loaded


def test_no_view_task_or_command_imports_torch() -> None:
    assert loaded_of(EVERY_MODULE, ("torch", "transformers", "peft", "trainer")) == []


def test_web_and_worker_start_without_numerical_libraries() -> None:
    """Together they took 100 MB in each of four processes. A page or task that needs one imports
    it on use."""
    heavy = ("numpy", "scipy", "pyarrow", "pandas", "krippendorff", "torch", "openai")
    assert loaded_of("", heavy) == []


def test_supervisor_loads_neither_django_nor_celery() -> None:
    """It runs as long as the demo and is idle, so it should be small."""
    code = "import sys, feedback_app.localstack.supervisor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=settings.BASE_DIR, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "feedback_app.localstack.stack" in loaded
    assert loaded & {"django", "celery", "httpx", "numpy", "torch"} == set()
