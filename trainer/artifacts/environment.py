"""The libraries and the hardware that a run uses, for its events and the adapter's manifest."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

#: Packages whose version may change the numbers of a run.
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "numba", "bitsandbytes")


def libraries() -> dict[str, str]:
    """Return the versions of Python and of the installed packages of PACKAGES."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the processor, its number of cores, the operating system and the GPUs by name."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
    }


def _processor() -> str:
    """Return the processor's name: Linux has it in a file, other systems have less."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
