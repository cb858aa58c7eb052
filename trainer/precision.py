"""Which floating-point type a device computes in: chosen by its features, confirmed by timing.

A CPU without bfloat16 instructions emulates them: a matrix product takes about 100 times as long
as in float32. Environment variables (ONEDNN_MAX_CPU_ISA) and virtual machines can hide
instructions that the processor has, so features alone do not decide for bfloat16.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.cache_dir import cache_dir
from trainer.errors import TrainerError

#: Features, as torch.cpu names them, any of which means bfloat16 dot products.
_BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
#: A product of (128, 512) and (512, 512): 75 ms where bfloat16 is emulated, 1 ms otherwise.
_ROWS, _WIDTH = 128, 512
#: bfloat16 must be at least this many times as fast as float32 to be chosen.
_WORTH_IT = 1.0
#: float16 is not chosen automatically: some models' activations overflow in it.
_NO_BF16 = "this GPU has no bfloat16 units; dtype float16 is faster and takes half the memory"


@dataclass(frozen=True)
class Precision:
    """A type and why it was chosen, fit for a log line."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def automatic_precision(device: torch.device) -> Precision:
    """Return what `dtype: auto` means on `device` for training, scoring and evaluation."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, "this GPU has bfloat16 units")
        return Precision(torch.float32, _NO_BF16)
    if device.type == "cpu":
        return _cpu_precision()
    return Precision(torch.bfloat16, f"the default on {device.type}")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the type that a configured name means on `device`, `auto` included.

    Raises TrainerError for a name that is no type of torch.
    """
    if name == "auto":
        return automatic_precision(device)
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TrainerError(f"dtype {name!r} is unknown: use auto, float32, bfloat16 or float16.")
    return Precision(dtype, "set by the configuration")


def _cpu_precision() -> Precision:
    features = _cpu_features()
    if features is not None and not any(features.get(name) for name in _BF16_FEATURES):
        return Precision(torch.float32, "this CPU has no bfloat16 units")
    ratio = _cached_ratio()
    if ratio < _WORTH_IT:
        return Precision(
            torch.float32,
            f"bfloat16 products run at {ratio:.2g} times the speed of float32 on this CPU",
        )
    return Precision(
        torch.bfloat16,
        f"bfloat16 products run at {ratio:.2g} times the speed of float32 on this CPU",
    )


def _cpu_features() -> Mapping[str, Any] | None:
    """Return the processor's features, None where this version of torch does not report them."""
    query = getattr(torch.cpu, "get_capabilities", None)
    return None if query is None else query()


def _cached_ratio() -> float:
    """Return the speed of bfloat16 over float32, measured once per processor, library and setting.

    A cache that cannot be read or written costs a measurement, nothing else.
    """
    key = json.dumps(
        [
            dict(_cpu_features() or {}),
            torch.__version__,
            [os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")],
        ],
        sort_keys=True,
        default=str,
    )
    path = cache_dir("precision") / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        return float(json.loads(path.read_bytes())["bfloat16_over_float32"])
    except (OSError, ValueError, KeyError, TypeError):
        ratio = measured_ratio()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"bfloat16_over_float32": ratio}))
        partial.replace(path)
    return ratio


def measured_ratio() -> float:
    """Time products of both types on the CPU (about 100 ms); return how much faster bfloat16 is.

    The fastest of several products counts, so that other work on the cores matters little.
    """
    half = _fastest_product(torch.bfloat16)
    return _fastest_product(torch.float32) / half


def _fastest_product(dtype: torch.dtype, *, budget_seconds: float = 0.05) -> float:
    """Return the seconds of the fastest product, of as many as fit the budget; at least two."""
    left = torch.ones(_ROWS, _WIDTH, dtype=dtype)
    right = torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    times: list[float] = []
    while len(times) < 2 or (sum(times) < budget_seconds and len(times) < 20):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return min(times)
