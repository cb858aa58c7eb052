"""Print the path of a Chromium that runs, for the browser tests.

PROSPECT_CHROMIUM, else the system's, else Playwright's own download (into var/browsers), else
apt-get where this user may. If none is found: one line on stderr and exit code 1.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BROWSERS = Path(__file__).resolve().parent.parent / "var" / "browsers"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPS = ("Chromium", "Google Chrome")


def main() -> int:
    """Try one source after the other, the fast ones first."""
    chosen = os.environ.get("PROSPECT_CHROMIUM")
    if chosen:
        if runs(chosen):
            return found(chosen)
        return fault(f"PROSPECT_CHROMIUM={chosen} does not run: correct or unset it.")
    for candidate in [*installed(), *downloaded()]:
        if runs(candidate):
            return found(candidate)
    for fetch, candidates in ((download, downloaded), (apt_get, installed)):
        fetch()
        for candidate in candidates():
            if runs(candidate):
                return found(candidate)
    return fault(
        "No Chromium: none is installed and neither Playwright's download nor apt-get gave one. "
        "Install chromium, or set PROSPECT_CHROMIUM to a Chromium or Chrome."
    )


def installed() -> Iterator[str]:
    """Yield the paths of system installations."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            yield path
    for app in MAC_APPS:
        yield f"/Applications/{app}.app/Contents/MacOS/{app}"


def downloaded() -> Iterator[str]:
    """Yield the paths of Playwright's downloads, the newest first."""
    patterns = ("chrome-*/chrome", "chrome-mac*/*.app/Contents/MacOS/*")
    for build in sorted(BROWSERS.glob("chromium-*"), reverse=True):
        for pattern in patterns:
            yield from map(str, sorted(build.glob(pattern)))


def runs(path: str) -> bool:
    """Return whether it starts: detects stubs of a package and missing libraries."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "Chrom" in done.stdout


def download() -> None:
    """Download Playwright's own build of Chromium."""
    note("No Chromium on this system: downloading Playwright's (about 170 MB) …")
    run(
        [sys.executable, "-m", "playwright", "install", "chromium"],
        {"PLAYWRIGHT_BROWSERS_PATH": str(BROWSERS)},
    )


def apt_get() -> None:
    """Install Debian's package, where this user may."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    note("Installing Debian's chromium …")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env)
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"], env)


def run(command: list[str], env: dict[str, str]) -> None:
    """Run one installation command; the caller checks the result."""
    subprocess.run(
        command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # standard output is for the path only
        check=False,
    )


def found(path: str) -> int:
    print(path)
    return 0


def fault(line: str) -> int:
    note(line)
    return 1


def note(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
