"""What the Makefile and the containers run before or beside the app."""

import os
import subprocess
import sys
import time
from pathlib import Path

import environ
import pytest
from django.conf import settings
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from tools import bootstrap, health, postgres, python_suite


def run(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"tools/{script}", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "WARNING: Retrying (Retry(total=1)) after connection broken by "
            "'NewConnectionError('Failed to establish a new connection')': /simple/setuptools/\n"
            "ERROR: No matching distribution found for setuptools>=77\n",
            "The package index cannot be reached",
        ),
        ("ERROR: Could not install packages: [Errno 28] No space left on device\n", "disk is full"),
        ("ERROR: Package 'prospect' requires a different Python\n", "requires a different Python"),
    ],
)
def test_failed_installation_is_reported_in_one_sentence(output: str, sentence: str) -> None:
    explained = bootstrap.explain(output)
    assert sentence in explained
    assert "\n" not in explained


def test_bootstrap_refuses_an_old_python_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "OLDEST", (99, 0))
    with pytest.raises(bootstrap.BootstrapError, match=r"Python 3.11 or newer is needed"):
        bootstrap.bootstrap("")
    monkeypatch.setattr(bootstrap, "OLDEST", (3, 11))
    monkeypatch.setattr(bootstrap, "STAMP", Path("/nonexistent"))
    monkeypatch.setattr(bootstrap, "NEEDED_BYTES", 10**18)
    with pytest.raises(bootstrap.BootstrapError, match="make room"):
        bootstrap.bootstrap("")


def test_bootstrap_does_nothing_when_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = tmp_path / "stamp"
    monkeypatch.setattr(bootstrap, "STAMP", stamp)
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    assert not bootstrap.is_ready("abc", "")
    stamp.write_text("abc \n")
    assert bootstrap.is_ready("abc", "")
    assert not bootstrap.is_ready("abc", "test")
    assert not bootstrap.is_ready("def", ""), "other dependencies"
    stamp.write_text("abc test\n")
    assert bootstrap.is_ready("abc", ""), "more than is needed is enough"
    assert not bootstrap.is_ready("abc", "cpu")
    stamp.write_text("abc cpu,test\n")
    assert bootstrap.is_ready("abc", "cpu")


@pytest.mark.parametrize(
    ("listed", "code", "extras"),
    [("GPU 0: NVIDIA H200 (UUID: GPU-1)", 0, ""), ("No devices were found", 6, "cpu")],
)
def test_compiled_cpu_code_is_installed_unless_a_gpu_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, code: int, extras: str
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '{listed}'\nexit {code}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert bootstrap.wanted_extras("") == extras
    assert bootstrap.wanted_extras("test") == "cpu,test"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert bootstrap.wanted_extras("") == "cpu"


def test_chromium_of_the_system_is_found(tmp_path: Path) -> None:
    stub, good = tmp_path / "stub" / "chromium", tmp_path / "good" / "chromium-browser"
    for path, text in ((stub, "exit 1"), (good, "echo Chromium 150.0")):
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    search = {"PATH": f"{stub.parent}:{good.parent}", "PROSPECT_CHROMIUM": ""}
    assert run("chromium.py", **search).stdout.strip() == str(good)


def test_chromium_that_does_not_run_is_reported_in_one_line(tmp_path: Path) -> None:
    done = run("chromium.py", PROSPECT_CHROMIUM=str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_postgres_uses_a_given_database_and_returns_the_exit_code() -> None:
    code = "import os, sys; print(os.environ['DATABASE_URL']); sys.exit(7)"
    done = run("postgres.py", sys.executable, "-c", code, DATABASE_URL="postgres://x/y")
    assert done.returncode == 7
    assert done.stdout.strip() == "postgres://x/y"


def test_postgres_socket_url_is_read_by_the_settings() -> None:
    url = postgres.django_url("postgresql://postgres:@/postgres?host=/srv/x/data")
    read = environ.Env.db_url_config(url)
    assert (read["HOST"], read["NAME"], read["USER"]) == ("/srv/x/data", "postgres", "postgres")


def test_other_python_gets_all_requirements_without_torch() -> None:
    project = {
        "dependencies": ["torch>=2.6", "django>=5.2,<5.3", "django-allauth[mfa]>=65.3"],
        "optional-dependencies": {"test": ["pytest>=8.3", "trl==1.16.*"]},
    }
    wanted = ["django>=5.2,<5.3", "django-allauth[mfa]>=65.3", "pytest>=8.3"]
    assert python_suite.requirements(project) == wanted


def test_missing_python_is_reported_in_one_line() -> None:
    done = run("python_suite.py", "/no/such/python")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_health_depends_on_the_age_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "beat-schedule"
    assert "is not there" in (health.stale(file, 60) or "")
    file.with_suffix(".dat").touch()
    assert health.stale(file, 60) is None
    old = time.time() - 61
    os.utime(file.with_suffix(".dat"), (old, old))
    assert "ago" in (health.stale(file, 60) or "")


def test_health_asks_a_server_under_a_name_that_it_accepts(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["prospect.example.com"]
    url = f"{live_server.url}/health"
    monkeypatch.delenv("ALLOWED_HOSTS", raising=False)
    assert "400" in (health.unwell(url) or "")
    monkeypatch.setenv("ALLOWED_HOSTS", "prospect.example.com,other.example.com")
    assert "400" in (health.unwell(url) or ""), "an engine accepts its own names only"
    assert health.main(["--site", url]) == 0
    assert health.unwell("http://127.0.0.1:9/health") is not None
