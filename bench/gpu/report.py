"""The figures as JSON and as a Markdown table, written again after each part."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.gpu.parts import Result

_PACKAGES = ("torch", "transformers", "bitsandbytes", "trl", "vllm")
_HEAD = ("part", "examples/s", "tokens/s by rows", "peak memory", "seconds", "")


def machine(device: str) -> dict[str, str]:
    """Return what the figures depend on."""
    name = platform.processor() or platform.machine()
    if device != "cpu":
        found = torch.cuda.get_device_properties(device)
        name = f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    versions = {package: _version(package) for package in _PACKAGES}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "device": name,
        "python": platform.python_version(),
        **{package: found for package, found in versions.items() if found},
    }


def write(directory: Path, conditions: Mapping[str, str], results: Sequence[Result]) -> str:
    """Write gpu.json and gpu.md into the directory; return the table."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {"machine": dict(conditions), "parts": [asdict(result) for result in results]}
    (directory / "gpu.json").write_text(json.dumps(content, indent=2) + "\n")
    found = ", ".join(f"{name} {value}" for name, value in conditions.items())
    text = "\n".join([found, "", _line(_HEAD), "|---" * len(_HEAD) + "|", *map(_row, results), ""])
    (directory / "gpu.md").write_text(text)
    return text


def _row(result: Result) -> str:
    rate = result.examples_per_second
    return _line(
        (
            result.name,
            "" if rate is None else f"{rate:.3g}",
            ", ".join(f"{rows}: {value:.0f}" for rows, value in result.tokens_per_second.items()),
            "" if result.peak is None else f"{result.peak / 2**30:.2f} GiB",
            f"{result.seconds:.0f}" if result.seconds else "",
            result.notes if result.state == "measured" else f"{result.state}: {result.why}",
        )
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
