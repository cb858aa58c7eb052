"""The CPU backend: code compiled by numba and LLVM. Needs the extra `cpu`."""

from typing import Any, Literal

import torch
from torch import Tensor

from trainer.backends.base import Layout, Rules
from trainer.backends.cpu import forest_attention, fused, serving_decoder, training_decoder
from trainer.backends.cpu.compiled_code import is_compiled
from trainer.backends.torch_reference.attention import forest_attention as reference_attention
from trainer.backends.torch_reference.head import target_logprobs

#: Types that the compiled loops read; others take the reference's way.
COMPILED_TYPES = (torch.float32, torch.bfloat16)


class CpuBackend:
    """trainer.backends.base.Backend over compiled loops."""

    name = "cpu"
    peft_layers = False

    def target_logprobs(
        self, logits: Tensor, targets: Tensor, found: Tensor, *, slopes: bool
    ) -> None:
        if logits.dtype in COMPILED_TYPES:
            fused.logprobs_of(fused.view(logits), targets.numpy(), fused.view(found), slopes)
        else:
            target_logprobs(logits, targets, found, slopes=slopes)

    def forest_attention(
        self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, layer: int, rules: Rules
    ) -> Tensor:
        if query.dtype not in COMPILED_TYPES or rules.sinks is not None:
            return reference_attention(query, key, value, layout, layer, rules)
        rotated = query.new_empty(0, 0)  # the model has rotated queries and keys already
        heads = (states.transpose(0, 1) for states in (query, key, value))
        found: Tensor = forest_attention.Attend.apply(
            *heads, rotated, rotated, layout, layer, rules
        )
        return found

    def give_up_kernels(self, error: BaseException) -> bool:
        return False  # its kernels are compiled here

    def new_warnings(self) -> list[str]:
        return []

    def hidden_states(
        self, decoder: Any, ids: Tensor, positions: Tensor, layout: Layout, wanted: Tensor
    ) -> Tensor | None:
        if not training_decoder.implements(decoder):
            return None
        return training_decoder.hidden_states(decoder, ids, positions, layout, wanted)

    def trains(self, layer_class: str) -> bool:
        return layer_class in training_decoder.BUILDS

    def compile_layers(self, model: Any) -> bool:
        return False

    def may_serve(self, model_type: str) -> bool:
        return model_type in serving_decoder.BUILDS

    def can_serve(self, model: Any) -> bool:
        return serving_decoder.implements(model)

    def serving_decoder(self, model: Any) -> serving_decoder.LlamaDecoder | None:
        return serving_decoder.LlamaDecoder(model) if self.can_serve(model) else None

    def is_compiled(self, part: Literal["training", "serving"]) -> bool:
        function = "loops.forward" if part == "serving" else "fused.gate_backward"
        return is_compiled(function)
