"""Create or update .venv: `python3.11 tools/bootstrap.py [--extra test]`.

Runs before anything is installed: it uses the standard library only, and an old Python must be able
to parse it to print the error. It writes to .venv and var/; a stamp file makes the next run fast.
The extra `cpu` (compiled code for training and serving on CPUs) is left out where an NVIDIA GPU is
visible; `--extra test` always includes it.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "prospect.stamp"
SCRATCH = ROOT / "var" / "install"
OLDEST = (3, 11)
NEEDED_BYTES = 4_000_000_000  # 2 GB installed, as much again while wheels are unpacked

NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|name resolution|ProxyError|"
    r"Network is unreachable|Connection refused|Connection reset|Max retries exceeded|SSLError|"
    r"RemoteDisconnected|IncompleteRead|Connection broken",
    re.IGNORECASE,
)
DISK = re.compile(r"No space left on device|Errno 28|Disk quota exceeded")
DOWNLOAD = re.compile(r"^\s*Downloading (\S+?)(?:\.metadata)? \(([\d.]+) ([kM]B)\)")


class BootstrapError(Exception):
    """The message is one sentence that names the remedy."""


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--extra", default="", choices=["", "test"], help="the extra to add")
    extra = arguments.parse_args().extra
    try:
        bootstrap(extra)
    except BootstrapError as error:
        print("make: " + str(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the next start resumes from here.", file=sys.stderr)
        return 130
    return 0


def bootstrap(extra):
    """Bring .venv up to date with pyproject.toml and constraints.txt. Raises BootstrapError."""
    if sys.version_info < OLDEST:
        raise BootstrapError(
            f"Python 3.11 or newer is needed and this is {sys.version.split()[0]}: install it, "
            "for example with `apt-get install python3.11 python3.11-venv` or `brew install "
            "python@3.11`."
        )
    wanted = fingerprint()
    extras = wanted_extras(extra)
    if is_ready(wanted, extras):
        return
    started = time.monotonic()
    require_space()
    if not PYTHON.exists():
        say(started, "Making .venv with Python " + sys.version.split()[0])
        make_venv()
    what = "what Prospect and its tests need" if extra else "what Prospect needs"
    say(started, "Installing " + what + " (once; some minutes and some hundred MB)")
    install(extras, started)
    STAMP.write_text(wanted + " " + extras + "\n")
    shutil.rmtree(SCRATCH, ignore_errors=True)
    say(started, "Installed.")


def fingerprint():
    """Return a hash that changes when the dependencies may have changed."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def wanted_extras(extra):
    """Return the extras of pyproject.toml to install, separated by commas."""
    if extra == "test":
        return "cpu,test"
    return "" if has_nvidia_gpu() else "cpu"


def has_nvidia_gpu():
    """Return whether an NVIDIA GPU is visible to programs."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        found = subprocess.run(
            ["nvidia-smi", "--list-gpus"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and "GPU" in found.stdout


def is_ready(wanted, extras):
    """Return whether .venv has these dependencies; more extras than needed are accepted."""
    try:
        stamped, _, had = STAMP.read_text().strip().partition(" ")
    except OSError:
        return False
    missing = set(extras.split(",")) - set(had.split(",")) - {""}
    return PYTHON.exists() and stamped == wanted and not missing


def require_space():
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise BootstrapError(
            f"The disk that holds {ROOT} has {free / 1e9:.1f} GB left and the installation needs "
            f"{NEEDED_BYTES / 1e9:.0f} GB: make room and start again."
        )


def make_venv():
    """Create a virtual environment; replace one left by an interrupted run."""
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)  # else the next start would use it as it is
    if "ensurepip" in done.stdout:
        raise BootstrapError(
            "This Python cannot make virtual environments: install its venv package (on Debian "
            "`apt-get install python3-venv`) and start again."
        )
    raise BootstrapError(explain(done.stdout))


def install(extras, started):
    """Run pip and show the slow steps; its whole output is written to var/logs/install.log."""
    log = ROOT / "var" / "logs" / "install.log"
    for directory in (log.parent, SCRATCH / "tmp"):
        directory.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUNBUFFERED="1")
    # Wheels are unpacked here, as /tmp may be small; downloads are kept after a failure.
    env.setdefault("PIP_CACHE_DIR", str(SCRATCH / "cache"))
    env["TMPDIR"] = str(SCRATCH / "tmp")
    target = "." + ("[" + extras + "]" if extras else "")
    command = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--retries", "2"]
    command += ["--constraint", "constraints.txt", "--editable", target]
    with (
        subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        ) as child,
        log.open("w") as file,
    ):
        for line in child.stdout:
            file.write(line)
            file.flush()
            progress(line, started)
    shutil.rmtree(ROOT / "prospect.egg-info", ignore_errors=True)  # pip has its own copy in .venv
    if child.returncode:
        raise BootstrapError(explain(log.read_text()))


def progress(line, started):
    """Print the steps that take long."""
    found = DOWNLOAD.match(line)
    if found and found.group(3) == "MB" and float(found.group(2)) >= 5:
        say(started, f"  downloading {found.group(1)} ({found.group(2)} MB)")
    elif line.startswith("Installing collected packages:"):
        say(started, "  unpacking {} packages".format(line.count(",") + 1))


def explain(output):
    """Return one sentence on why an installation failed."""
    if DISK.search(output):
        return "The disk is full: make room and start again; what was downloaded is kept."
    if NETWORK.search(output):
        return (
            "The package index cannot be reached: check the network (or PIP_INDEX_URL and the "
            "proxy) and start again; what was downloaded is kept."
        )
    errors = [line for line in output.splitlines() if line.startswith(("ERROR", "error"))]
    lines = errors or output.strip().splitlines() or ["no output"]
    return f"The installation failed ({lines[-1].strip()}): see var/logs/install.log."


def say(started, line):
    print(f"[{time.monotonic() - started:4.0f} s] {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
