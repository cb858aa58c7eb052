"""oneDNN's cache: a process with ever new shapes does not keep a kernel for each."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from trainer.precision import automatic_precision

MANY_SHAPES = """
import json, os, resource, sys
from trainer.onednn_cache import limit_kernel_caches
limit_kernel_caches()
import torch
torch.set_num_threads(1)

def resident():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

weight = torch.ones(1536, 576, dtype=torch.bfloat16)
def products(start, stop):
    for rows in range(start, stop):
        torch.nn.functional.linear(torch.ones(rows, 576, dtype=torch.bfloat16), weight)

products(720, 740)
before = resident()
products(20, 1000)
print(json.dumps({"grown": resident() - before, "kept": os.environ["LRU_CACHE_CAPACITY"]}))
"""


def after_many_shapes(**environment: str) -> dict[str, Any]:
    """Return the MiB that a thousand products of different shapes add to a process."""
    clean = {key: value for key, value in os.environ.items() if "CACHE_CAPACITY" not in key}
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES],
        check=True,
        capture_output=True,
        text=True,
        env={**clean, **environment},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    automatic_precision(torch.device("cpu")).dtype != torch.bfloat16,
    reason="bfloat16 is emulated on this CPU, by kernels for any shape, and takes an hour",
)
def test_kernels_of_past_shapes_are_freed() -> None:
    kept = {"LRU_CACHE_CAPACITY": "1024", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}
    limited, usual = after_many_shapes(), after_many_shapes(**kept)
    # 20 MiB of tolerance for other allocations of the process
    assert limited["grown"] <= 0.7 * usual["grown"] + 20
    assert (limited["kept"], usual["kept"]) == ("512", "1024")  # a value set before is kept
