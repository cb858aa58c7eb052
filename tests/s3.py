"""A real S3 server on loopback (moto's), and a bucket in it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines import wait_until

BUCKET = "prospect-artifacts"


@dataclass
class Bucket:
    """A bucket of the server; `environment` is what a process needs to reach it."""

    url: str
    environment: dict[str, str]

    @property
    def filesystem(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(use_listings_cache=False)

    def objects(self, tree: str = "") -> list[str]:
        """Return the keys below a tree."""
        found: list[str] = self.filesystem.find(f"{BUCKET}/{tree}".rstrip("/"))
        return found


class Server:
    """moto's S3 server in a process of its own, which can be stopped and started again."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return what a process needs to reach the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            # no look-up of credentials elsewhere
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=output,
                stderr=output,
            )
        wait_until(self._answers, what="the S3 server")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("moto")
    server = Server(tmp_path_factory.mktemp("s3") / "server.log")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; this process and its children reach it."""
    environment = s3_server.environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from artifact_store.objects import _opened

    _opened.cache_clear()
    found = Bucket(f"s3://{BUCKET}/here", environment)
    filesystem = found.filesystem
    filesystem.mkdir(BUCKET)
    yield found
    filesystem.rm(BUCKET, recursive=True)
    _opened.cache_clear()
