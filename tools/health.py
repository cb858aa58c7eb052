"""Health checks of the containers: exit code 0 if healthy, else one line on stderr.

`tools/health.py URL` requests a URL; with `--site` before it, as the first of ALLOWED_HOSTS;
`tools/health.py --fresh FILE SECONDS` checks that a file (by the start of its name) was written
recently.
"""

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run one check."""
    if arguments[0] == "--fresh":
        fault = stale(Path(arguments[1]), float(arguments[2]))
    elif arguments[0] == "--site":
        fault = unwell(arguments[1], host=os.environ.get("ALLOWED_HOSTS", "").split(",")[0])
    else:
        fault = unwell(arguments[0])
    if fault is None:
        return 0
    print(fault, file=sys.stderr)
    return 1


def unwell(url: str, *, host: str = "") -> str | None:
    """Return the error of a server; None if it answers with success."""
    request = urllib.request.Request(url)
    host = host.strip().removeprefix(".")
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=10):
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"{url}: {error}"


def stale(path: Path, seconds: float) -> str | None:
    """Return the error of a file that should be written continually."""
    # the shelve module writes one to three files, depending on its database
    written = [file.stat().st_mtime for file in path.parent.glob(f"{path.name}*")]
    if not written:
        return f"{path} is not there."
    age = time.time() - max(written)
    return None if age <= seconds else f"{path} was last written {age:.0f} s ago."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
