"""Backends: how training and serving compute on a kind of device.

`backend_for` is the only way to reach one. The compiled CPU backend needs the packages of the extra
`cpu` (numba and llvmlite) and is imported when it is selected, as is the CUDA backend; everything
works without them through the reference backend. `PROSPECT_BACKEND=torch_reference` in the
environment selects the reference everywhere, for example to compare results; `cuda` selects the
CUDA backend, whose attention without gradients runs on CPUs too.
"""

import os
from functools import cache
from importlib import import_module
from typing import Any

import torch

from trainer.backends.base import Backend, Decoder
from trainer.backends.torch_reference import TorchReference
from trainer.backends.torch_reference.decoder import TransformersDecoder
from trainer.errors import Refused

#: Environment variable that forces a backend; empty or unset chooses by device.
VARIABLE = "PROSPECT_BACKEND"
#: Packages of the extra `cpu`.
CPU_PACKAGES = ("numba", "llvmlite")

_REFERENCE = TorchReference()
_CUDA = "cuda"


def backend_for(device: torch.device | str) -> Backend:
    """Return the backend that trains and serves on a device.

    Raises Refused when PROSPECT_BACKEND names an unknown backend.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", _REFERENCE.name, _CUDA):
        raise Refused(
            f"{VARIABLE} is {forced!r}: use {_REFERENCE.name!r} or {_CUDA!r}, or unset it to "
            "choose the backend by device."
        )
    kind = torch.device(device).type
    if not forced and kind == "cpu":
        return _cpu() or _REFERENCE
    return _cuda() if forced == _CUDA or (not forced and kind == "cuda") else _REFERENCE


def serving_decoder(model: Any) -> Decoder:
    """Return a decoder that takes the weights out of a model: the device's own, or the reference
    where that does not implement the model."""
    device = next(model.parameters()).device
    return backend_for(device).serving_decoder(model) or _REFERENCE.serving_decoder(model)


def model_decoder(model: Any) -> Decoder:
    """Return a decoder that runs the model as it is and leaves it usable; it takes no adapters."""
    return TransformersDecoder(model)


@cache
def _cuda() -> Backend:
    """Return the CUDA backend."""
    found: Backend = import_module("trainer.backends.cuda").CudaBackend()
    return found


@cache
def _cpu() -> Backend | None:
    """Return the compiled CPU backend; None without the packages of the extra `cpu`."""
    try:
        found: Backend = import_module("trainer.backends.cpu").CpuBackend()
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in CPU_PACKAGES:
            raise
        return None
    return found
