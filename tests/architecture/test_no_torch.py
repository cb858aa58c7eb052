"""The web app and the workers never load the model's libraries."""

import os
import subprocess
import sys

from django.conf import settings

LOOK = """
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

from feedback_app.config import celery_app
celery_app.loader.import_default_modules()
tasks = [name for name in celery_app.tasks if not name.startswith("celery.")]

import feedback_app
for module in pkgutil.walk_packages(feedback_app.__path__, "feedback_app."):
    importlib.import_module(module.name)

print(views, len(tasks), *sorted(
    name for name in ("torch", "transformers", "peft", "trainer") if name in sys.modules
))
"""


def test_no_view_task_or_command_imports_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    views, tasks, *loaded = done.stdout.split()
    assert int(views) > 20, "the URLs were looked at"
    assert int(tasks) >= 4, "the tasks were looked at"
    assert loaded == []
