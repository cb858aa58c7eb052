"""docker-compose.yml, Dockerfile, Procfile and .env.example match the code."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml
from django.conf import settings
from honcho.environ import parse_procfile

from feedback_app.config.threads import ANSWER_THREADS, PAGE_THREADS, UPLOAD_THREADS
from tests.architecture.commands import check

pytestmark = pytest.mark.slow

ROOT = Path(settings.BASE_DIR)
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "prospect"}
PROCFILE = parse_procfile((ROOT / "Procfile").read_text()).processes
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+)(:?[-?][^}]*)?\}")
#: variables that only docker-compose.yml uses
COMPOSE_ONLY = {"POSTGRES_PASSWORD", "MODEL_PATH"}


def split_shell(line: str) -> Iterator[list[str]]:
    """Return the words of each command of a line, as sh expands them without variables set."""
    for command in line.split("&&"):
        words = subprocess.run(
            ["/bin/sh", "-c", f"set -- {command}\nprintf '%s\\n' \"$@\""],
            env={"PATH": os.defpath},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        yield words.splitlines()


def commands(service: dict[str, Any]) -> Iterator[list[str]]:
    """Return the commands of a service and its health check, with the defaults of variables."""

    def plain(word: str) -> str:
        return INTERPOLATION.sub(lambda found: (found[2] or "").lstrip(":-?"), word)

    command = [plain(word) for word in service["command"]]
    if command[:2] == ["sh", "-c"]:
        yield from split_shell(command[2])
    else:
        yield command
    kind, *test = service.get("healthcheck", {"test": ["NONE"]})["test"]
    if kind == "CMD":
        yield test
    elif kind == "CMD-SHELL":
        yield from split_shell(test[0].replace("$$", "$"))


@pytest.mark.parametrize("name", sorted(OURS))
def test_each_command_of_a_service_exists(name: str) -> None:
    found = list(commands(OURS[name]))
    assert found
    for argv in found:
        check(argv)


@pytest.mark.parametrize("name", sorted(PROCFILE))
def test_each_command_of_the_procfile_exists(name: str) -> None:
    found = list(split_shell(PROCFILE[name]))
    assert found
    for argv in found:
        check(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["uvicorn", "feedback_app.config.asgi:application", "--no-such-flag"],
        ["celery", "-A", "feedback_app.config", "worker", "--no-such-flag"],
        ["python", "-m", "trainer", "serve", "--model=m", "--artifacts=a", "--no-such-flag"],
        ["python", "manage.py", "no_such_command"],
        ["python", "tools/no_such_file.py"],
    ],
)
def test_wrong_command_is_detected(argv: Sequence[str]) -> None:
    with pytest.raises((SystemExit, AssertionError, KeyError, click.UsageError)):
        check(argv)


def test_same_processes_run_on_one_machine_and_in_production() -> None:
    assert set(PROCFILE) - {"valkey"} == set(OURS) - {"migrate"}
    assert {"postgres", "valkey"} <= set(SERVICES)


def test_every_queue_has_a_worker_in_both() -> None:
    queues = {settings.CELERY_TASK_DEFAULT_QUEUE}
    queues |= {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    for lines in (list(PROCFILE.values()), [" ".join(s["command"]) for s in OURS.values()]):
        served = {found for line in lines for found in re.findall(r"--queues[ =](\w+)", line)}
        assert served == queues
    for line in (PROCFILE["worker-gpu"], " ".join(OURS["worker-gpu"]["command"])):
        assert re.search(r"--concurrency[ =]1\b", line), "one run at a time on a GPU"


def test_every_variable_of_a_service_is_read_by_the_settings() -> None:
    for name, service in OURS.items():
        unknown = set(service["environment"]) - settings_variables() - {"TINI_KILL_PROCESS_GROUP"}
        assert not unknown, f"{name}: nothing reads {unknown}"


def test_variables_in_the_example_are_explained_and_exist() -> None:
    text = (ROOT / ".env.example").read_text()
    explained = re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)
    assert len(explained) == len(set(explained))
    asked = {
        found[1] for found in INTERPOLATION.finditer((ROOT / "docker-compose.yml").read_text())
    }
    assert asked - COMPOSE_ONLY <= settings_variables() | procfile_variables()
    # each setting has its own comment above it, in sentences
    assert set(explained) == settings_variables() | COMPOSE_ONLY | {
        "PORT",
        "ENGINE_PORT",
        "VALKEY_PORT",
    }
    assert asked <= set(explained)
    for block in text.split("\n\n"):
        if re.search(r"^#?[A-Z_]+=", block, re.MULTILINE):
            assert block.lstrip().startswith("# "), f"no comment above: {block}"


def test_secrets_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("SECRET_KEY", "POSTGRES_PASSWORD", "ALLOWED_HOSTS", "EMAIL_URL"):
        uses = [found for found in INTERPOLATION.finditer(text) if found[1] == name]
        assert uses
        assert all(found[2].startswith(":?") for found in uses), f"{name} has a default"


@pytest.mark.slow
def test_settings_load_with_the_environment_of_a_service() -> None:
    given = {
        "SECRET_KEY": "only-for-this-test-0123456789-0123456789",
        "ALLOWED_HOSTS": "prospect.example.com",
        "EMAIL_URL": "smtp://mail.example.com",
        "POSTGRES_PASSWORD": "p",
    }

    def fill(value: str) -> str:
        return INTERPOLATION.sub(
            lambda found: given.get(found[1], (found[2] or "").removeprefix(":-")), value
        )

    env = {name: fill(value) for name, value in OURS["web"]["environment"].items()}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_image_starts_in_production_mode() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    given = dict(
        re.findall(r"\b([A-Z_]+)=(\S+)", " ".join(re.findall("^ENV (.*)", dockerfile, re.M)))
    )
    assert given["PROSPECT_ENV"] == "production"
    done = subprocess.run(
        [sys.executable, "-c", "import feedback_app.config.wsgi"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **given, "PROSPECT_VAR": settings.VAR},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for name in ("SECRET_KEY", "ALLOWED_HOSTS", "EMAIL_URL"):
        assert name in done.stderr.splitlines()[-1], "the image starts without this variable"


def test_engine_accepts_the_names_under_which_the_services_ask_it() -> None:
    [url] = {service["environment"]["ENGINE_URL"] for service in OURS.values()}
    asked = INTERPOLATION.sub(lambda found: found[2].removeprefix(":-"), url)
    assert f"--allowed-host={urlsplit(asked).hostname}" in SERVICES["engine"]["command"]
    assert "--site" not in SERVICES["engine"]["healthcheck"]["test"], "it accepts no public name"
    assert "--site" in SERVICES["web"]["healthcheck"]["test"]


def test_every_dependency_and_volume_of_a_service_exists() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (
                    f"{name} depends on {other}, which has no health check"
                )
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
        assert "healthcheck" in service or service.get("restart") == "no", name


def test_image_contains_everything_that_the_services_run() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    for source in copied:
        assert (ROOT / source).exists(), source
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == let_through
    for service in OURS.values():
        for argv in commands(service):
            scripts = [word for word in argv if word.endswith(".py")]
            for script in scripts:
                assert {script, str(PurePosixPath(script).parts[0])} & copied, script


def settings_variables() -> set[str]:
    """Return every variable that settings.py reads from the environment."""
    tree = ast.parse((ROOT / "feedback_app" / "config" / "settings.py").read_text())
    return {
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


def procfile_variables() -> set[str]:
    """Return every variable that a command of the Procfile uses."""
    return set(re.findall(r"\$\{(\w+)", (ROOT / "Procfile").read_text()))


def test_postgres_accepts_a_connection_of_every_thread() -> None:
    options = " ".join(SERVICES["postgres"]["command"])
    allowed = int(re.search(r"max_connections=(\d+)", options)[1])  # type: ignore[index]
    web = " ".join(SERVICES["web"]["command"])
    workers = int(re.search(r"--workers=(\d+)", web)[1])  # type: ignore[index]
    threads = PAGE_THREADS + ANSWER_THREADS + UPLOAD_THREADS
    # the rest is for Celery, migrations and a person with psql
    assert workers * threads + 20 <= allowed
