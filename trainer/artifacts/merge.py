"""`python -m trainer merge`: base and adapter as one model that runs without LoRA."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, fsync, verify_adapter
from trainer.artifacts.model_card import base_licence, licence_identifier
from trainer.config import MAX_RANK
from trainer.errors import Refused, TrainerError
from trainer.models.layers import is_transposed, layer_shapes, linear_layers
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import PREFIX, adapted_layers, scale_of
from trainer.models.peft_experts import PeftExperts
from trainer.models.peft_lora import PeftLora

_CARD = """---
base_model: {base}
license: {licence}
tags: [lora, kto, merged]
---

# {name}, merged

`{base_name}` with the adapter `{name}` added to its weights (W + s · B A with s = {scale}{rows}, in
float32, stored as {dtype}). Licence of the base model: {licence_text}.

| | SHA-256 |
|---|---|
| base model (fingerprint) | `{fingerprint}` |
| adapter weights | `{adapter_sha256}` |
"""


def merge(model: str, adapter: Path, out: Path, *, dtype: str = "auto") -> Path:
    """Write the merged model and its tokenizer to `out`, whole or not at all; returns `out`.

    `dtype` is what the weights are stored in; `auto` is what the base is stored in. Raises Refused
    when `out` exists, BadArtifact with everything that is wrong with the adapter, TrainerError when
    the base does not load, OSError (disk full).
    """
    if out.exists() or out.is_symlink():
        raise Refused(f"{out} exists already: name a directory that does not, nothing is replaced")
    # before the base is loaded
    verify_adapter(adapter, base_fingerprint=None, max_rank=MAX_RANK, dora=True, experts=True)
    base = load_base(model, dtype=stored_dtype(model) if dtype == "auto" else dtype, device="cpu")
    manifest = verify_adapter(
        adapter,
        base_fingerprint=base.fingerprint,
        max_rank=MAX_RANK,
        shapes=layer_shapes(base.model),
        dora=True,
        experts=True,
    )
    add_to_weights(base, adapter)

    licence = base_licence(model)
    card = _CARD.format(
        base=json.dumps(model),
        base_name=model,
        rows=", rows of DoRA's lengths" if adapter_settings(adapter).get("use_dora") else "",
        scale=f"{scale_of(adapter_settings(adapter)):g}",
        name=manifest.name,
        licence=licence_identifier(licence),
        licence_text=licence,
        dtype=str(base.dtype).removeprefix("torch."),
        fingerprint=base.fingerprint,
        adapter_sha256=manifest.sha256,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        base.model.save_pretrained(partial)
        base.tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
        for file in partial.iterdir():
            fsync(file)
        fsync(partial)
        partial.rename(out)
        fsync(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def add_to_weights(base: LoadedBase, adapter: Path) -> None:
    """W ← W + s · B A for each adapted layer, s the adapter's scale: summed in float32, rounded
    once to W's type. With DoRA each of its rows then gets the length that was learned."""
    settings = adapter_settings(adapter)
    scale = scale_of(settings)
    tensors = load_file(adapter / WEIGHTS)
    layers = linear_layers(base.model)
    if settings.get("target_parameters"):
        tensors = _experts_added(base, settings, tensors)
    with torch.no_grad():
        for name in adapted_layers(tensors):
            a = tensors[f"{PREFIX}{name}.lora_A.weight"].float()
            b = tensors[f"{PREFIX}{name}.lora_B.weight"].float()
            weight = layers[name].weight
            transposed = is_transposed(layers[name])
            merged = (weight.t() if transposed else weight).float() + scale * (b @ a)
            if settings.get("use_dora"):
                length = tensors[f"{PREFIX}{name}.lora_magnitude_vector"].float()
                merged *= (length / merged.norm(dim=1))[:, None]
            weight.copy_(merged.t() if transposed else merged)


def _experts_added(
    base: LoadedBase, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Add the adapters of routed experts to their weights; return the tensors of the other layers.
    Raises BadArtifact where a matrix fits no expert."""
    linear = linear_layers(base.model)
    others = [name for name in adapted_layers(tensors) if name in linear]
    lora = PeftLora.attach(
        base.model,
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        rslora=bool(settings.get("use_rslora")),
        only=others,
        experts=True,
    )
    try:
        lora.load(tensors)
        for layer in lora.layers.values():
            if isinstance(layer, PeftExperts):
                layer.merge()
    finally:
        lora.detach()
    kept = {f"{PREFIX}{name}.lora_{side}.weight" for name in others for side in "AB"}
    return {name: tensor for name, tensor in tensors.items() if name in kept}


def adapter_settings(adapter: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((adapter / CONFIG).read_bytes())
    return settings


def stored_dtype(model: str) -> str:
    """Return the type in which a base model's weights are stored, as load_base calls it."""
    try:
        stored = AutoConfig.from_pretrained(model).dtype
    except (OSError, ValueError) as error:
        raise TrainerError(f"The base model {model!r} cannot be loaded: {error}") from error
    return str(stored or torch.float32).removeprefix("torch.")
