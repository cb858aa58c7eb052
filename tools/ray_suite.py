"""Run the tests on a real Ray cluster: `python tools/ray_suite.py [PYTEST ARG …]`.

Installs Ray into a virtual environment of its own, var/pythons/ray: Prospect talks to a cluster
over HTTP and needs none of it. Jobs run there, with the packages of the interpreter that runs this
besides. Exit code: pytest's.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY = ROOT / "var" / "pythons" / "ray"
#: The version that the launcher is tested with.
RAY = "ray[default]==2.60.0"
TESTS = "tests/training/launchers/test_ray_cluster.py"


def make_environment() -> Path:
    """Create or update the virtual environment; return its `ray`."""
    python = DIRECTORY / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(DIRECTORY)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", RAY], check=True)
    # after Ray's own, so that it finds the versions it was installed with
    (packages,) = DIRECTORY.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return DIRECTORY / "bin" / "ray"


def main(arguments: list[str]) -> int:
    try:
        ray = make_environment()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"Ray could not be installed: {error}.", file=sys.stderr)
        return 1
    env = {**os.environ, "PROSPECT_RAY": str(ray), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", TESTS, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
