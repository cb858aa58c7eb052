"""Llama, Mistral and Qwen 2 on a CPU: the whole model in one compiled call (loops.py).

transformers' own forward is made for every architecture and for training: on a small model most of
a decoding step is spent between the matrix products. The plainest and most common build (RMSNorm,
rotary positions, grouped queries, a gated MLP) takes the compiled way, prompts and single tokens
alike, with its adapters; every other model, and every other device, goes through transformers
(trainer/backends/torch_reference).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.backends.base import AdapterWeights, PromptCache
from trainer.backends.cpu import loops, phases
from trainer.backends.cpu.fused import Array, view
from trainer.backends.cpu.vectors import LANES, PAIRS, TILE, pack
from trainer.backends.kv_cache import Layers, RowCache
from trainer.models.layers import layer_shape, linear_layers

#: config.model_type of what loops.py computes.
BUILDS = ("llama", "mistral", "qwen2")
#: What a layer of theirs is made of.
_PARTS = {
    "": ("input_layernorm", "mlp", "post_attention_layernorm", "self_attn"),
    "self_attn": ("k_proj", "o_proj", "q_proj", "v_proj"),
    "mlp": ("act_fn", "down_proj", "gate_proj", "up_proj"),
}
#: Layers that read the same input and are one product, by the numbers that phases.py gives them.
_PRODUCTS = {
    phases.QKV: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    phases.OUT: ("self_attn.o_proj",),
    phases.GATE_UP: ("mlp.gate_proj", "mlp.up_proj"),
    phases.DOWN: ("mlp.down_proj",),
}
#: Parts of a product for each thread: with more of them the threads end at the same time, with
#: fewer they read longer stretches of memory, which is faster.
_PARTS_A_THREAD = 3


class _PackedAdapter(NamedTuple):
    """An adapter: packed A and B (layers, tiles, ·) of each product, None without one."""

    pairs: tuple[tuple[Tensor, Tensor] | None, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the rows of A of each product, whole tiles."""
        return tuple(0 if pair is None else pair[0].shape[1] * TILE for pair in self.pairs)

    @property
    def addresses(self) -> list[tuple[int, int]]:
        return [
            (0, 0) if pair is None else (pair[0].data_ptr(), pair[1].data_ptr())
            for pair in self.pairs
        ]


class LlamaDecoder:
    """The weights of one model, taken out of it, and adapters by slot number; 0 is the base. One
    thread owns it."""

    batch_invariant = True

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        decoder = model.get_decoder()
        attention = decoder.layers[0].self_attn
        path = next(name for name, module in model.named_modules() if module is decoder)
        self._at = [f"{path}.layers.{index}." for index in range(len(decoder.layers))]
        self._embed = model.get_input_embeddings()
        self._dtype: torch.dtype = self._embed.weight.dtype
        self._rotary = decoder.rotary_emb
        self._heads: int = config.num_attention_heads
        self._groups: int = config.num_key_value_heads
        self._size: int = attention.head_dim
        self._scale = float(attention.scaling)
        self._eps = float(decoder.norm.variance_epsilon)
        #: (out, in) of each layer: what an adapter's matrices must fit.
        self.shapes = {name: layer_shape(layer) for name, layer in linear_layers(model).items()}
        self._weights = _packed_weights(model)
        # a thread with next to no work only delays the others
        self._threads = min(torch.get_num_threads(), self._weights.out.shape[1] // 2 or 1)
        self._loaded: dict[int, _PackedAdapter] = {}
        self._last_slot = 0
        self._work: phases.Work | None = None
        self([[0]], [0], [0], self.cache(1, 1))  # compile now, not at the first request

    # -- adapters

    @property
    def slots(self) -> list[int]:
        """Return the slots of the loaded adapters."""
        return list(self._loaded)

    def attach(self, weights: AdapterWeights) -> int:
        """Load an adapter; return its slot, which is never used again for another."""
        rank = max(a.shape[0] for a, _ in weights.values())
        pairs = [self._pair(product, weights, rank) for product in _PRODUCTS]
        self._last_slot += 1
        self._loaded[self._last_slot] = _PackedAdapter(tuple(pairs))
        return self._last_slot

    def detach(self, slot: int) -> None:
        """Free an adapter that no row uses."""
        del self._loaded[slot]

    def _pair(
        self, product: int, weights: AdapterWeights, rank: int
    ) -> tuple[Tensor, Tensor] | None:
        """Return A of all layers of a product stacked, and their B on a diagonal; layers that the
        adapter leaves as they are get zeros."""
        names = _PRODUCTS[product]
        if not any(at + name in weights for at in self._at for name in names):
            return None
        pairs = []
        for at in self._at:
            a = torch.zeros(len(names) * rank, self.shapes[at + names[0]][1], dtype=self._dtype)
            b = [
                torch.zeros(self.shapes[at + name][0], len(a), dtype=self._dtype) for name in names
            ]
            for index, name in enumerate(names):
                if at + name in weights:
                    mine, theirs = weights[at + name]
                    rows = slice(index * rank, index * rank + len(mine))
                    a[rows], b[index][:, rows] = mine, theirs
            # as many inputs of B as A has outputs, which are whole tiles
            pairs.append((pack(a), pack(F.pad(_stacked(product, b), (0, -len(a) % TILE)))))
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    # -- tokens

    def cache(self, rows: int, positions: int, known: Layers = ()) -> RowCache:
        """Return a cache for prompts; `known` are keys and values that the first begins with."""
        like = torch.empty(0, self._groups, 0, self._size, dtype=self._dtype)
        return RowCache.sized(len(self._at), like, rows, positions, known)

    @torch.inference_mode()
    def __call__(
        self,
        parts: Sequence[Sequence[int]],
        starts: Sequence[int],
        slots: Sequence[int],
        cache: RowCache,
        *,
        scored: bool = True,
    ) -> Tensor:
        """Return the scores (rows, V) of the token after each row; (0, V) unless `scored`.

        Row i of the cache, which must have room, has `starts[i]` positions; `parts[i]` are the
        tokens that come next.
        """
        order = sorted(range(len(parts)), key=lambda row: slots[row])  # rows of an adapter together
        ends = np.cumsum([len(parts[row]) for row in order])
        wanted = np.empty(len(parts) if scored else 0, np.int64)
        if scored:
            wanted[order] = ends - 1
        tokens = np.array(
            [(row, starts[row] + n) for row in order for n in range(len(parts[row]))], np.int64
        )
        ids = torch.tensor([token for row in order for token in parts[row]])
        work = self._room(len(ids), len(wanted))
        work.hidden[:, : self._embed.embedding_dim] = self._embed(ids).float().numpy()
        positions = torch.from_numpy(tokens[:, 1])[None]
        cos, sin = self._rotary(torch.empty(0), positions)  # fp32, as the empty one is
        scores = torch.empty(len(wanted), self._embed.num_embeddings, dtype=self._dtype)
        rows, _, length, _ = cache.layers[0].keys.shape
        if rows < len(parts) or length <= tokens[:, 1].max():  # compiled code checks no bounds
            raise ValueError(f"the cache has no room for {len(parts)} rows to go on")
        shape = phases.Shape(
            self._heads,
            self._groups,
            self._size,
            rows,
            length,
            self._scale,
            self._eps,
            parts=_PARTS_A_THREAD * self._threads,
        )
        self._run(
            phases.control(loops.PHASES * len(self._at) + loops.HEAD_PHASES),
            self._weights,
            self._adapters([slots[row] for row in order], ends),
            shape,
            tokens,
            cos[0].numpy(),
            sin[0].numpy(),
            np.array([(one.keys.data_ptr(), one.values.data_ptr()) for one in cache.layers]),
            np.arange(len(ids)),
            wanted,
            work,
            view(scores),
        )
        return scores

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
        """Read the next tokens of prompts (trainer.backends.base.Decoder)."""
        if not isinstance(cache, RowCache):
            raise TypeError("the cache must be one that this decoder made")
        return self(parts, [start] * len(parts), slots, cache, scored=scored)

    def step(
        self, tokens: Sequence[Sequence[int]], slots: Sequence[int], cache: RowCache
    ) -> Tensor:
        """Write one token a row; return the scores (rows, V) of the next."""
        cache.reserve(len(tokens), max(cache.lengths) + 1)
        return self(tokens, cache.lengths, slots, cache)

    def _run(self, *given: Any) -> None:
        others = [
            _helpers(self._threads - 1).submit(loops.forward, *given)
            for _ in range(self._threads - 1)
        ]
        loops.forward(*given)
        for other in others:
            other.cancel()  # a thread that has not begun; the others end without a part to take

    def _adapters(self, slots: Sequence[int], ends: Array) -> phases.Adapters:
        """Return the adapters of rows that are sorted by slot; `ends` of each row's tokens."""
        spans: list[list[int]] = []
        used: list[int] = []
        for number, slot in enumerate(slots):
            if slot and used[-1:] != [slot]:
                spans.append([ends[number - 1] if number else 0, 0])
                used.append(slot)
            if slot:
                spans[-1][1] = ends[number]
        used_adapters = [self._loaded[slot] for slot in used]
        return phases.Adapters(
            np.array(spans, np.int64).reshape(-1, 2),
            np.array([one.addresses for one in used_adapters], np.int64).reshape(
                -1, len(_PRODUCTS), 2
            ),
            np.array([one.ranks for one in used_adapters], np.int64).reshape(-1, len(_PRODUCTS)),
        )

    def _room(self, count: int, wanted: int) -> phases.Work:
        """Return buffers for `count` tokens, of which `wanted` are scored."""
        rank = max((rank for one in self._loaded.values() for rank in one.ranks), default=0)
        kept = self._work
        have = (0, 0, 0) if kept is None else (len(kept.low), kept.low.shape[1], len(kept.last))
        if kept is None or have[0] < count or have[1] < rank or have[2] < wanted:
            kept = self._allocated(max(count, have[0]), rank, max(wanted, have[2]))
            self._work = kept
        return phases.Work(*[*(part[:count] for part in kept[:-1]), kept.last[:wanted]])

    def _allocated(self, count: int, rank: int, wanted: int) -> phases.Work:
        whole = torch.float32
        given = torch.bfloat16 if self._dtype == torch.bfloat16 and PAIRS else whole
        w = self._weights
        qkv, out, gate_up, head = (
            part.shape[1] * TILE for part in (w.qkv, w.out, w.gate_up, w.head)
        )
        return phases.Work(
            hidden=_zeros(count, out, whole),
            normed=_zeros(count, out, given),
            heads=_zeros(count, qkv, whole),
            attended=_zeros(count, self._heads * self._size, given),
            gate_up=_zeros(count, gate_up, whole),
            gated=_zeros(count, gate_up // 2, given),
            sums=_zeros(count, rank, whole),
            low=_zeros(count, rank, given),
            last=_zeros(wanted, head, whole),
        )


def implements(model: Any) -> bool:
    """Return whether LlamaDecoder implements a model's architecture, device and type."""
    config = model.config.get_text_config()
    weight = model.get_input_embeddings().weight
    if (
        config.model_type not in BUILDS
        or weight.device.type != "cpu"
        or weight.dtype not in (torch.float32, torch.bfloat16)
    ):
        return False
    return all(_is_known(layer) for layer in model.get_decoder().layers)


def _is_known(layer: nn.Module) -> bool:
    for path, parts in _PARTS.items():
        children = dict(layer.get_submodule(path).named_children())
        if tuple(sorted(children)) != parts:
            return False
    linears = [layer.get_submodule(name) for names in _PRODUCTS.values() for name in names]
    head_size: int = layer.get_submodule("self_attn").head_dim  # type: ignore[assignment]
    return (
        all(type(linear) is nn.Linear for linear in linears)
        and type(layer.get_submodule("mlp.act_fn")).__name__ in ("SiLU", "SiLUActivation")
        and head_size % LANES == 0
    )


def _packed_weights(model: Any) -> phases.Weights:
    """Return the weights of all layers, packed. What has been packed is left on "meta" in the model
    and nothing refers to the file of the base any more, so that one copy of the weights is held."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    products: list[Array] = []
    biases: list[Array] = []
    for product, names in _PRODUCTS.items():
        packed, bias = torch.empty(0), []
        for number, layer in enumerate(decoder.layers):
            linears = [layer.get_submodule(name) for name in names]
            weight = pack(_stacked(product, [one.weight.detach() for one in linears]))
            if not number:
                packed = torch.empty(len(decoder.layers), *weight.shape, dtype=weight.dtype)
            packed[number] = weight
            if linears[0].bias is not None:
                columns = [one.bias.detach().float()[:, None] for one in linears]
                bias.append(_stacked(product, columns)[:, 0])
            for linear in linears:
                linear.weight = nn.Parameter(linear.weight.to("meta"), requires_grad=False)
        products.append(view(packed))
        biases.append(view(torch.stack(bias) if bias else torch.empty(0, 0)))
    norms = [
        norm.weight.detach().float()
        for layer in decoder.layers
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    ]
    head_bias = torch.empty(0, 0) if head.bias is None else head.bias.detach().float()[None]
    products.append(view(pack(head.weight.detach())[None]))  # it may be the embedding, and stays
    biases.append(view(head_bias))
    norm = view(torch.stack([*norms, decoder.norm.weight.detach().float()]))
    for parameter in model.parameters():  # embeddings and norms; the others are on "meta" now
        # it may be a view of the mapped file, all of which is resident as long as there is one
        parameter.data = parameter.data.clone()
    return phases.Weights(*[*products, *biases, norm, _windows(model)])


def _windows(model: Any) -> Array:
    """Return how far back each layer sees, 0 for everything."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    count = len(model.get_decoder().layers)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    return np.array([window if kind == "sliding_attention" else 0 for kind in kinds], np.int64)


def _stacked(product: int, parts: Sequence[Tensor]) -> Tensor:
    """Return the outputs (·, in) of layers that are one product. Those of gate and up are taken
    sixteen by sixteen, so that a tile has what belongs together; the inputs of what follows as
    well."""
    if product == phases.GATE_UP:
        padded = [F.pad(part, (0, 0, 0, -len(part) % LANES)) for part in parts]
        sixteens = [part.view(-1, LANES, part.shape[1]) for part in padded]
        return torch.stack(sixteens, 1).flatten(0, 2)
    return torch.cat(list(parts))


def _zeros(rows: int, width: int, kind: torch.dtype) -> Array:
    """Made by torch, which begins at whole lines of the cache."""
    return view(torch.zeros(rows, width, dtype=kind))


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="decoder")
