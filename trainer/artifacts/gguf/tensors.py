"""Names, order and types of the tensors in llama.cpp's form of a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.errors import Refused
from trainer.models.lora import PREFIX, adapted_layers

#: llama.cpp's architecture of each model type that is known here.
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
}
OTHERWISE = "write it with `python -m trainer merge` and convert that with llama.cpp's own script"


@dataclass(frozen=True)
class Layout:
    """How llama.cpp names and orders the tensors of one model."""

    config: Any
    arch: gguf.MODEL_ARCH
    names: gguf.TensorNameMap

    @property
    def name(self) -> str:
        return gguf.MODEL_ARCH_NAMES[self.arch]

    def key(self, key: str) -> str:
        """Return llama.cpp's name of a weight or bias. Raises Refused if it has none."""
        found: str | None = self.names.get_name(key, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise Refused(f"llama.cpp has no name for {key}: {OTHERWISE}")
        return found

    def ordered(self, layer: str, tensor: Tensor) -> Tensor:
        """Return the weight, bias or LoRA B of a layer with its rows in llama.cpp's order.

        Rotary embedding turns pairs of rows: here row i of a head with row i + half, in llama.cpp's
        Llama row 2i with row 2i + 1.
        """
        heads = self._rotated(layer)
        if heads is None:
            return tensor
        halves = tensor.unflatten(0, (heads, 2, -1))
        return halves.transpose(1, 2).reshape(tensor.shape)

    def _rotated(self, layer: str) -> int | None:
        """Return the number of heads of a layer whose rows have another order, else None."""
        if self.arch != gguf.MODEL_ARCH.LLAMA:
            return None
        heads: dict[str, int] = {
            "q_proj": self.config.num_attention_heads,
            "k_proj": self.config.num_key_value_heads,
        }
        return heads.get(layer.rpartition(".")[2])

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write the model's sizes and constants."""
        config = self.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_vocab_size(config.vocab_size)


def layout_of(config: Any) -> Layout:
    """Return the layout of a model with this configuration. Raises Refused if it is not known."""
    arch = ARCHITECTURES.get(config.model_type)
    if arch is None:
        known = ", ".join(ARCHITECTURES)
        raise Refused(f"GGUF is written for {known}, not for {config.model_type}: {OTHERWISE}")
    rope = config.rope_parameters.get("rope_type", "default")
    if rope != "default":
        raise Refused(f"GGUF is not written for rotary embeddings of type {rope}: {OTHERWISE}")
    return Layout(config, arch, gguf.get_tensor_name_map(arch, config.num_hidden_layers))


def adapter_tensors(adapter: Path, layout: Layout) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield name and values of A (r, in) and B (out, r) of each adapted layer, as float32."""
    tensors = load_file(adapter / WEIGHTS)
    for layer in adapted_layers(tensors):
        key = layout.key(f"{layer}.weight")
        a = tensors[f"{PREFIX}{layer}.lora_A.weight"].float()
        b = tensors[f"{PREFIX}{layer}.lora_B.weight"].float()
        yield f"{key}.lora_a", a.numpy()
        yield f"{key}.lora_b", layout.ordered(layer, b).contiguous().numpy()


def stored(tensor: Tensor, dtype: torch.dtype) -> tuple[NDArray[Any], gguf.GGMLQuantizationType]:
    """Return a tensor as GGUF stores it: matrices in `dtype`, vectors as float32, which all of
    llama.cpp's kernels ask for."""
    kinds = gguf.GGMLQuantizationType
    if tensor.dim() < 2 or dtype == torch.float32:
        return tensor.float().contiguous().numpy(), kinds.F32
    values = tensor.to(dtype).contiguous()
    if dtype == torch.float16:
        return values.numpy(), kinds.F16
    # numpy has no bfloat16: the bytes
    return values.view(torch.uint8).numpy(), kinds.BF16
