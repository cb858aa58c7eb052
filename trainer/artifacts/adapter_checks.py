"""Faults of PEFT's two files: settings that are not served, matrices that fit no layer."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

#: (out, in) of a base's linear layers by name.
Shapes = Mapping[str, Sequence[int]]

_TENSOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight")
_MAGNITUDE = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_magnitude_vector")
#: PEFT's layers around experts; of two around the same ones the inner one is called base_layer.
_EXPERTS = re.compile(r"(?:[A-Za-z0-9_.]+\.)?experts(?:\.base_layer)?")
_FLOATS = {"F32", "F16", "BF16"}

# LoraConfig fields that change what is computed or imported and that are not served.
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "auto_mapping",
    "exclude_modules",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
# Ways to begin that move weights of the base into the adapter: it fits no untouched base.
_BASE_CHANGING = ("corda", "loftq", "lora_ga", "olora", "pissa")


def config_faults(
    raw: Mapping[str, Any], *, max_rank: int, dora: bool = False, experts: bool = False
) -> tuple[int | None, list[str]]:
    """Return the rank that adapter_config.json names (None where it names none) and every fault.
    `dora`: whether the caller can use DoRA's magnitudes, `experts` adapters of routed experts."""
    faults = []
    if raw.get("peft_type") != "LORA":
        faults.append(f"peft_type is {raw.get('peft_type')!r}, only LORA is served")
    if raw.get("bias", "none") != "none":
        faults.append(f"bias is {raw['bias']!r}, only 'none' is served")
    faults += [f"{key} is not supported" for key in _UNSUPPORTED if raw.get(key)]
    if raw.get("use_dora") and not dora:
        faults.append("use_dora is not served: merge the adapter by `python -m trainer merge`")
    faults += _experts_faults(raw.get("target_parameters"), allowed=experts)
    if str(raw.get("init_lora_weights")).lower().startswith(_BASE_CHANGING):
        faults.append(f"init_lora_weights {raw['init_lora_weights']!r} changes the base's weights")
    if not isinstance(raw.get("use_rslora"), bool | None):
        faults.append(f"use_rslora must be true or false, not {raw['use_rslora']!r}")
    alpha = raw.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < 10_000:
        faults.append("lora_alpha must be a positive number")
    rank = raw.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        faults.append("r must be a positive whole number")
        return None, faults
    if rank > max_rank:
        faults.append(f"rank {rank} is above the limit of {max_rank}")
    return rank, faults


def _experts_faults(given: object, *, allowed: bool) -> list[str]:
    if not given:
        return []
    if not allowed:
        return [
            "target_parameters (adapters of routed experts) are not served: merge the adapter by "
            "`python -m trainer merge` and serve the model that it makes"
        ]
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return []
    return ["target_parameters must be a list of names"]


def tensor_faults(
    path: Path,
    *,
    rank: int | None,
    shapes: Shapes | None,
    dora: bool = False,
    experts: bool = False,
) -> list[str]:
    """Return every fault of a safetensors file of LoRA matrices, also of how they fit the base's
    layers (`shapes`; None: there is no base at hand). `dora`: it holds magnitudes as well.
    `experts`: also matrices of routed experts, whose fit Lora.load checks."""
    faults = []
    sides: dict[str, dict[str, list[int]]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in sorted(file.keys()):
                if dora and (magnitude := _MAGNITUDE.fullmatch(key)) is not None:
                    faults += _magnitude_faults(file, key, magnitude["module"], shapes)
                    continue
                match = _TENSOR.fullmatch(key)
                if match is None:
                    faults.append(f"tensor {key!r} is no LoRA matrix")
                    continue
                found = sides.setdefault(match["module"], {})
                found[match["side"]] = file.get_slice(key).get_shape()
                many = experts and _EXPERTS.fullmatch(match["module"]) is not None
                faults += _one_tensor_faults(file, key, match["side"], rank, many=many)
    except (SafetensorError, OSError) as error:
        return [f"{path.name} cannot be read as safetensors ({error})"]
    for module, pair in sides.items():
        if len(pair) != 2:
            faults.append(f"{module} lacks lora_{'B' if 'A' in pair else 'A'}")
        elif experts and _EXPERTS.fullmatch(module):
            continue
        elif shapes is not None and all(len(shape) == 2 for shape in pair.values()):
            faults += _misfits(module, (pair["B"][0], pair["A"][1]), shapes)
    if not sides and not faults:
        faults.append(f"{path.name} holds no tensors")
    return faults


def _misfits(module: str, given: tuple[int, int], shapes: Shapes) -> list[str]:
    if module not in shapes:
        return [f"{module} is no linear layer of the base model that can carry an adapter"]
    here = tuple(shapes[module])
    if given == here:
        return []
    return [f"{module} is for a layer of {given[0]}×{given[1]}, here it has {here[0]}×{here[1]}"]


def _magnitude_faults(file: Any, key: str, module: str, shapes: Shapes | None) -> list[str]:
    header = file.get_slice(key)
    shape = list(header.get_shape())
    if header.get_dtype() not in _FLOATS:
        return [f"{key} has type {header.get_dtype()}, expected one of {sorted(_FLOATS)}"]
    if len(shape) != 1 or (shapes is not None and shape != list(shapes.get(module, shape))[:1]):
        return [f"{key} has shape {tuple(shape)}, which does not fit its layer"]
    if not bool(torch.isfinite(file.get_tensor(key)).all()):
        return [f"{key} holds NaN or infinite values"]
    return []


def _one_tensor_faults(
    file: Any, key: str, side: str, rank: int | None, *, many: bool = False
) -> list[str]:
    """`many`: the matrix holds those of several experts, `rank` rows or columns each."""
    header = file.get_slice(key)
    shape = header.get_shape()
    if header.get_dtype() not in _FLOATS:
        return [f"{key} has type {header.get_dtype()}, expected one of {sorted(_FLOATS)}"]
    own = shape[0 if side == "A" else 1] if len(shape) == 2 else 0
    fits = rank is None or own == rank or (many and own > 0 and own % rank == 0)
    if len(shape) != 2 or not fits:
        return [f"{key} has shape {tuple(shape)}, which does not fit rank {rank}"]
    if not bool(torch.isfinite(file.get_tensor(key)).all()):
        return [f"{key} holds NaN or infinite values"]
    return []
