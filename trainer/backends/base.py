"""What a backend does for training and serving, and the types that it shares with its callers.

A backend computes on one kind of device. Anything that it does not cover returns None or False, and
the caller uses transformers' own modules instead (torch_reference). `trainer.backends.backend_for`
chooses the backend of a device.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from trainer.backends.kv_cache import Layers, PromptRows, RowCache

Ids = tuple[int, ...]
_T = TypeVar("_T")

#: (A, B) by the name of the linear layer, (rank, in) and (out, rank), B times its scale.
AdapterWeights: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
#: A cache of prompts that are being read.
PromptCache: TypeAlias = RowCache | PromptRows


# -- packed rows


@dataclass(frozen=True)
class Span:
    """Columns [start, stop) of a packed stream."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Segment:
    """A run of tokens: its columns, the position of its first token in the row, and what precedes
    it: columns of a stream that was computed earlier (`stored`), then columns of its own stream
    (`above`), both in the order of positions."""

    span: Span
    position: int
    stored: tuple[Span, ...] = ()
    above: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Forest:
    """A packed stream: token ids (T,), positions (T,), its segments in the order of their columns,
    and each row's path as spans of the stream. trainer/forward/segments.py builds it."""

    ids: Ids
    positions: Ids
    segments: tuple[Segment, ...]
    paths: tuple[tuple[Span, ...], ...]

    @property
    def length(self) -> int:
        return len(self.ids)

    def columns(self, row: int, start: int, stop: int) -> list[int]:
        """Return the columns that hold tokens [start, stop) of a row."""
        found: list[int] = []
        offset = 0
        for span in self.paths[row]:
            low, high = max(start - offset, 0), min(stop - offset, span.length)
            if low < high:
                found += range(span.start + low, span.start + high)
            offset += span.length
        return found

    def prefix(self, row: int, length: int) -> tuple[Span, ...]:
        """Return the spans that hold the first `length` tokens of a row."""
        found: list[Span] = []
        left = length
        for span in self.paths[row]:
            if left <= 0:
                break
            found.append(Span(span.start, span.start + min(left, span.length)))
            left -= span.length
        return tuple(found)


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of every layer that later rows attend to, each (G, T, D), detached."""

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """Attention settings of a layer: `window` counts visible positions, itself included. `sinks`
    (H,) are a logit of each head that takes a share of the softmax and gives nothing (gpt-oss)."""

    scale: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """How the stream that runs through the model now is attended: its forest, the keys and values
    of an earlier stream that its segments refer to, and where to keep its own for later."""

    forest: Forest
    stored: KeysValues | None = None
    keep: KeysValues | None = None
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def derived(self, make: Callable[[Forest], _T]) -> _T:
        """Return `make(forest)`, computed once: every layer needs it again."""
        if make not in self._derived:
            self._derived[make] = make(self.forest)
        return cast("_T", self._derived[make])


#: What torch says where no attention kernel takes these shapes, this type or this device.
_MISSING_KERNEL = re.compile(
    r"no available kernel|no viable backend for scaled_dot_product_attention"
    r"|cudnn frontend error|no (valid )?execution plan|flashattention only supports"
    r"|could not run 'aten::_(scaled_dot_product|flash_attention|efficient_attention|cudnn)",
    re.IGNORECASE,
)


def is_missing_kernel(error: BaseException) -> bool:
    """Return whether an error says that the device has no fused kernel for an attention."""
    return isinstance(error, RuntimeError) and _MISSING_KERNEL.search(str(error)) is not None


# -- the protocols


class Decoder(Protocol):
    """The weights of one served model, and adapters by slot number; 0 is the base model.

    One thread uses it. `batch_invariant`: a row's scores are the same bit for bit alone and in any
    batch.
    """

    batch_invariant: bool

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Return (out, in) of each linear layer, which an adapter's matrices must fit."""

    @property
    def slots(self) -> list[int]:
        """Return the slots of the loaded adapters."""

    def attach(self, weights: AdapterWeights) -> int:
        """Load an adapter; return its slot, which is never used again for another."""

    def detach(self, slot: int) -> None:
        """Free an adapter that no row uses."""

    def cache(self, rows: int, positions: int, known: Layers = ()) -> PromptCache:
        """Return a cache for prompts of at most `positions` tokens; `known` are the keys and
        values that the first of them begins with."""

    def read(
        self,
        parts: Sequence[Sequence[int]],
        start: int,
        slots: Sequence[int],
        cache: PromptCache,
        *,
        running: Sequence[int] = (),
        scored: bool = True,
    ) -> Tensor:
        """Read the next tokens of prompts, which have `start` positions in `cache`.

        Returns the scores (rows, V) of the token after each part; without `scored` they may be
        empty. `running` are the slots of the rows that are being decoded meanwhile.
        """

    def step(
        self, tokens: Sequence[Sequence[int]], slots: Sequence[int], cache: RowCache
    ) -> Tensor:
        """Write one token a row and return the scores (rows, V) of the next one."""


class Backend(Protocol):
    """How one kind of device trains and serves."""

    name: str

    # training

    #: Whether training uses PEFT's layers. The compiled decoder runs those of
    #: trainer/models/lora.py together, which saves a fifth of a step.
    peft_layers: bool

    def target_logprobs(
        self, logits: Tensor, targets: Tensor, found: Tensor, *, slopes: bool
    ) -> None:
        """Write log p of the targets (N,) into `found` (N,) fp32, from logits (N, V).

        `slopes` replaces the logits by the derivative with respect to them, onehot(target) −
        softmax.
        """

    def forest_attention(
        self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, layer: int, rules: Rules
    ) -> Tensor:
        """Return attention over a packed forest, (T, H, D), from queries (H, T, D) and keys and
        values (G, T, D) with H a multiple of G. Differentiable."""

    def give_up_kernels(self, error: BaseException) -> bool:
        """Do without the kernels whose lack an error reports (`is_missing_kernel`); return False
        where there is nothing to do without."""

    def new_warnings(self) -> list[str]:
        """Return what users of this process should know, each message once."""

    def hidden_states(
        self, decoder: Any, ids: Tensor, positions: Tensor, layout: Layout, wanted: Tensor
    ) -> Tensor | None:
        """Return the last hidden states (N, D) of the columns `wanted` (N,) of a packed stream, ids
        and positions (1, T); None for an architecture that the backend does not implement."""

    def trains(self, layer_class: str) -> bool:
        """Return whether `hidden_states` implements decoder layers of this class."""

    def compile_layers(self, model: Any) -> bool:
        """Compile the decoder layers of a model with its adapter, in place; False where the backend
        leaves them as they are. Raises RunFailed where torch cannot compile."""

    # serving

    def may_serve(self, model_type: str) -> bool:
        """Return whether `serving_decoder` implements some models of this `config.model_type`."""

    def can_serve(self, model: Any) -> bool:
        """Return whether `serving_decoder` implements this model."""

    def serving_decoder(self, model: Any) -> Decoder | None:
        """Return a decoder that takes the weights out of the model; None for a model that the
        backend does not implement."""

    # compilation

    def is_compiled(self, part: Literal["training", "serving"]) -> bool:
        """Return whether the first use of this part on this machine compiles nothing."""
