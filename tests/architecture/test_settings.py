"""Production refuses to start with unsafe settings; tested with real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = pytest.mark.slow  # a dozen processes
SAFE = {
    "PROSPECT_ENV": "production",
    "SECRET_KEY": "a-secret-that-nobody-else-has-0123456789",
    "ALLOWED_HOSTS": "prospect.example.com",
    "EMAIL_URL": "smtp+tls://user:password@mail.example.com:587",
}
LOOK = (
    "from django.conf import settings as s; "
    "print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.DEBUG)"
)


def start(
    var: Path, env: dict[str, str], code: str = LOOK, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Start a new process that loads the settings."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=settings.BASE_DIR,
        env={
            "PATH": os.environ["PATH"],
            "PROSPECT_VAR": str(var),
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_starts_with_safe_settings(tmp_path: Path) -> None:
    done = start(tmp_path, SAFE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "True", "False"]


#: What is unsafe, and the variable that the refusal names.
UNSAFE: list[tuple[dict[str, str], str]] = [
    ({"SECRET_KEY": ""}, "SECRET_KEY"),
    ({"SECRET_KEY": "change-me"}, "SECRET_KEY"),
    ({"SECRET_KEY": "change-me-" + "x" * 40}, "SECRET_KEY"),
    ({"SECRET_KEY": "short"}, "SECRET_KEY"),
    ({"DEBUG": "true"}, "DEBUG"),
    ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS"),
    ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
    ({"ALLOWED_HOSTS": "prospect.example.com,*"}, "ALLOWED_HOSTS"),
    ({"EMAIL_URL": ""}, "EMAIL_URL"),
    ({"EMAIL_URL": "consolemail://"}, "EMAIL_URL"),
    ({"REDIS_URL": "memory://"}, "REDIS_URL"),
]
#: Loads the settings once for each environment, in one process: a start takes seconds.
LOAD_EACH = """
import json, os, runpy, sys
said = []
for change in json.loads(sys.argv[1]):
    before = dict(os.environ)
    os.environ.update(change)
    try:
        runpy.run_module("feedback_app.config.settings")
        said.append("started")
    except Exception as error:
        said.append(str(error))
    os.environ.clear()
    os.environ.update(before)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what loading the settings says: as in SAFE, then with each change of UNSAFE."""
    changes = json.dumps([{}, *(change for change, _ in UNSAFE)])
    done = start(tmp_path_factory.mktemp("var"), SAFE, LOAD_EACH, changes)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("number", range(len(UNSAFE)), ids=[str(change) for change, _ in UNSAFE])
def test_production_refuses_to_start(number: int, refusals: list[str]) -> None:
    assert refusals[0] == "started"
    assert "Refusing to start in production" in refusals[1 + number]
    assert UNSAFE[number][1] in refusals[1 + number]


def test_production_reports_every_error_at_once(tmp_path: Path) -> None:
    done = start(tmp_path, {"PROSPECT_ENV": "production", "DEBUG": "true"})
    last = done.stderr.strip().splitlines()[-1]
    assert all(name in last for name in ("SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "EMAIL_URL"))


def test_single_machine_generates_a_secret_key_and_keeps_it(tmp_path: Path) -> None:
    code = "from django.conf import settings; print(settings.SECRET_KEY)"
    first, second = (start(tmp_path, {}, code).stdout.strip() for _ in range(2))
    assert len(first) >= 50
    assert first == second
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0, "readable for its owner only"


@pytest.mark.parametrize("exists", [False, True])
def test_directory_of_data_is_made_private_at_the_start(tmp_path: Path, exists: bool) -> None:
    var = tmp_path / "var"
    if exists:
        var.mkdir()
        var.chmod(0o755)

    done = start(var, {})

    assert done.returncode == 0, done.stderr
    assert var.stat().st_mode & 0o777 == 0o700


def test_shared_temporary_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)

    assert start(tmp_path, {}).returncode == 0
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


def test_invalid_engine_url_is_refused(tmp_path: Path) -> None:
    for urls in ('"file:///etc/passwd"', '["http://127.0.0.1:8001", "file:///etc/passwd"]'):
        done = start(tmp_path, {"ENGINES": f'{{"m": {urls}}}'})
        assert done.returncode != 0
        assert "'file:///etc/passwd' is not an http(s) URL" in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"RAY_PROCESSES": "0"},
        # a process uses one GPU: the others would be idle
        {"RAY_PROCESSES": "2", "RAY_GPUS": "4"},
        {"RAY_PROCESSES": "2", "RAY_GPUS": "0.5"},
        # Ray reserves no place that takes nothing
        {"RAY_PROCESSES": "2", "RAY_GPUS": "0", "RAY_CPUS": "0"},
    ],
    ids=str,
)
def test_processes_on_a_cluster_that_could_not_work_are_refused(
    tmp_path: Path, given: dict[str, str]
) -> None:
    done = start(tmp_path, given)
    assert done.returncode != 0
    assert "RAY_PROCESSES is 1 or more. A process uses one GPU" in done.stderr
    assert start(tmp_path, {"RAY_PROCESSES": "8", "RAY_GPUS": "1"}).returncode == 0
