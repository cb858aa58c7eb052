"""All processes of the stack, on a tiny model, with the suite's own database and var/ directory."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection

from feedback_app.localstack.stack import Stack

TINY = "tiny"


def database_url() -> str:
    """Return the test database as a URL for the processes."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{values['NAME']}"
    host = str(values["HOST"])
    user = f"{quote(values['USER'])}:{quote(values['PASSWORD'])}"
    if host.startswith("/"):  # a socket's directory is read from the path
        return f"postgres://{user}@/{host}/{values['NAME']}"
    return f"postgres://{user}@{host}:{values['PORT']}/{values['NAME']}"


# per module, not per session: its beat and workers act on rows of whatever test comes next
@pytest.fixture(scope="module")
def stack(django_db_setup: None, django_db_blocker: pytest.FixtureRequest) -> Iterator[Stack]:
    """Run web, engine, both workers, beat and Valkey until the module's last test has ended."""
    from tests.tiny import make_tiny_model

    var = Path(settings.VAR)
    make_tiny_model(var / "models" / TINY)
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        url = database_url()
    env: dict[str, str | None] = {
        "PROSPECT_ENV": "test",
        "PROSPECT_VAR": str(var),
        "DATABASE_URL": url,
        "BASE_MODEL": TINY,
        "REDIS_URL": None,
        "ENGINE_URL": None,
        "RUN_STALE_SECONDS": "20",
        "OMP_NUM_THREADS": "1",
        # beside other tests of the suite a trainer of low priority would hardly run
        "TRAINER_NICE": "0",
    }
    before = settings.ENGINES
    with Stack(env=env) as running:
        settings.ENGINES = {TINY: running.engine_url}
        yield running
    settings.ENGINES = before
    if "PROSPECT_KEEP_LOGS" in os.environ:
        shutil.copytree(var / "logs", os.environ["PROSPECT_KEEP_LOGS"], dirs_exist_ok=True)


def last_lines(stack: Stack, name: str, count: int = 20) -> str:
    """Return the end of a process's log, for the message of a failing test."""
    text = stack.process(name).log.read_text(errors="replace")
    return json.dumps(text.splitlines()[-count:], indent=1)
