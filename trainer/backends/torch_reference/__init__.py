"""The reference backend: torch and transformers, on any device, without compiled code of ours."""

from typing import Any, Literal

from torch import Tensor

from trainer.backends.base import Layout, Rules
from trainer.backends.torch_reference import attention, head
from trainer.backends.torch_reference.adapters import AdapterStack


class TorchReference:
    """trainer.backends.base.Backend over transformers' own modules."""

    name = "torch_reference"
    peft_layers = True

    def target_logprobs(
        self, logits: Tensor, targets: Tensor, found: Tensor, *, slopes: bool
    ) -> None:
        head.target_logprobs(logits, targets, found, slopes=slopes)

    def forest_attention(
        self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, layer: int, rules: Rules
    ) -> Tensor:
        return attention.forest_attention(query, key, value, layout, layer, rules)

    def give_up_kernels(self, error: BaseException) -> bool:
        return attention.FUSED.give_up(error)

    def new_warnings(self) -> list[str]:
        found, attention.FUSED.messages = attention.FUSED.messages, []
        return found

    def hidden_states(
        self, decoder: Any, ids: Tensor, positions: Tensor, layout: Layout, wanted: Tensor
    ) -> Tensor | None:
        return None  # the caller runs transformers' own decoder

    def trains(self, layer_class: str) -> bool:
        return False

    def compile_layers(self, model: Any) -> bool:
        return False

    def may_serve(self, model_type: str) -> bool:
        return False

    def can_serve(self, model: Any) -> bool:
        return False

    def serving_decoder(self, model: Any) -> AdapterStack:
        return AdapterStack(model)

    def is_compiled(self, part: Literal["training", "serving"]) -> bool:
        return True  # nothing is compiled
