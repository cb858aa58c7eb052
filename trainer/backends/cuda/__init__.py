"""The CUDA backend: the reference, with FlexAttention over packed forests.

Where FlexAttention fails on a device (no compiler, no kernel), its process goes on with the
reference's attention and says so once.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from trainer.backends.base import Layout, Rules
from trainer.backends.torch_reference import TorchReference

log = logging.getLogger(__name__)


class CudaBackend(TorchReference):
    """trainer.backends.base.Backend over transformers' modules, with FlexAttention."""

    name = "cuda"

    def __init__(self) -> None:
        self._given_up = False
        self._messages: list[str] = []
        self._probed: set[tuple[Any, ...]] = set()

    def forest_attention(
        self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, layer: int, rules: Rules
    ) -> Tensor:
        # loads torch's compiler, 2 s: a plan asks this backend without using it
        from trainer.backends.cuda import forest_attention as flex

        if self._given_up or rules.sinks is not None or not flex.supports(query, key, value):
            return super().forest_attention(query, key, value, layout, layer, rules)
        stored = None if layout.stored is None else layout.stored.layers[layer]
        try:
            self._probe_once(query, key, rules)
            found = flex.attend(query, key, value, layout, stored, rules)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's errors have no common class
            self._give_up(error)
            return super().forest_attention(query, key, value, layout, layer, rules)
        if layout.keep is not None:
            layout.keep.layers[layer] = (key.detach(), value.detach())
        return found

    def compile_layers(self, model: Any) -> bool:
        from trainer.backends.cuda.compiled import compile_layers

        compile_layers(model)
        return True

    def new_warnings(self) -> list[str]:
        found, self._messages = self._messages, []
        return [*found, *super().new_warnings()]

    def _probe_once(self, query: Tensor, key: Tensor, rules: Rules) -> None:
        shapes = (query.shape[0], query.shape[2], key.shape[0])
        kind = (query.device, query.dtype, shapes, rules.softcap, rules.window is None)
        if query.device.type == "cuda" and kind not in self._probed:
            from trainer.backends.cuda.forest_attention import probe

            probe(query, key, rules)
            self._probed.add(kind)

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        message = (
            "attention over packed prompts runs segment by segment, which is slower: "
            f"FlexAttention does not work here ({first})"
        )
        self._messages.append(message)
        log.warning(message)
