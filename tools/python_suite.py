"""Run the web app's suite on another Python: `python tools/python_suite.py PYTHON [PYTEST ARG …]`.

Creates a virtual environment of that Python under var/pythons, without the libraries of the trainer
and the engine: torch has no wheels for every Python, and pages need none of them. Tests that start
an engine are skipped there. Exit code: pytest's.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools.image_requirements import TRAINER_ONLY, name_of  # noqa: E402

TESTS = ["accounts", "feedback", "training", "serving", "faults"]
#: trl needs torch itself.
LEFT_OUT = {*TRAINER_ONLY, "trl"}


def requirements(project: dict) -> list[str]:
    """Return the requirements of the web app and its tests from pyproject.toml."""
    lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [line for line in lines if name_of(line) not in LEFT_OUT]


def make_environment(python: str) -> Path:
    """Create or update the virtual environment; return its interpreter."""
    name = "import sys; print('{}.{}'.format(*sys.version_info))"
    version = subprocess.run(
        [python, "-c", name], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    directory = ROOT / "var" / "pythons" / version
    made = directory / "bin" / "python"
    if not made.exists():
        subprocess.run([python, "-m", "venv", "--clear", str(directory)], check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    install = [str(made), "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
    subprocess.run([*install, *requirements(project)], cwd=ROOT, check=True)
    return made


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        python = make_environment(arguments[0])
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"The environment could not be made: {error}.", file=sys.stderr)
        return 1
    tests = [f"tests/{name}" for name in TESTS]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(python), "-m", "pytest", "-m", "not browser and not model", *tests]
    return subprocess.run([*command, *arguments[1:]], cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
