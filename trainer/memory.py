"""How much memory training takes, from the architecture alone: nothing is loaded.

What is held while a step runs, in bytes, for weights and activations of b bytes an element:

    base         parameters · b; in 4 bits PACKED a packed weight, b for the rest
    adapter      rank · Σ (in + out) matrices, each as the adapter (b), its gradient (b), an fp32
                 master (4), the master's gradient (4) and AdamW's two moments (8)
    activations  what the backward pass reads again, for every token that waits for its gradient:
                 see `token_bytes`
    attention    the shares (softmax of scores), b for each head and pair of positions; none on
                 CUDA, whose kernels compute them again
    logits       LOGITS a number, for one chunk of positions
    workspace    gradients on their way through one layer, a layer that is unpacked or gathered
    process      Python, its libraries, and what the device's runtime takes for itself

Constants that were measured are marked so; `bench/plan.py` prints them anew from real runs.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Self

import torch

from trainer.layers import layer_shape, linear_layers
from trainer.quantise import FOUR_BIT

MIB = 2**20

#: Bytes of a weight in NF4: half a byte, one byte of scale for 64 of them, and four bytes of scale
#: of the scales for 256 of those (Dettmers et al. 2023, Section 3).
PACKED = 0.5 + 1 / 64 + 4 / (64 * 256)

#: fp32 master, its gradient, AdamW's two moments.
MASTER = 4 + 4 + 8

#: RMSNorm computes in fp32 and keeps that copy of its input; LayerNorm keeps the input itself.
RMS_NORM = 4

#: Tensors of the MLP's inner width that are kept. Gated: gate, its activation, up, the product that
#: goes down. Plain: GELU by its formula keeps four on the way to what goes down.
GATED, PLAIN = 4, 5

#: The same of an expert: what goes down is not kept, since no adapter reads it.
EXPERT = 3

#: Bytes a logit, of the positions in one chunk: fp32 scores and their exponentials, and logits and
#: their gradient in the model's type.
LOGITS_FP32, LOGITS_OWN = 8, 2
CHUNK = 256

#: Widths of the hidden state and of the MLP in fp32 and in the model's type that the backward pass
#: holds for a token at one time, in one layer.
GRADIENT_FP32, GRADIENT_OWN = 3, 4

#: Measured. What malloc holds on top of what is in use: pieces of all sizes come and go, and holes
#: stay. On CUDA the caching allocator rounds up; assumed alike.
HEAP = 1.15

#: Measured. A process that has imported the trainer and loaded a tokeniser.
PROCESS_CPU = 420 * MIB

#: Measured. Kernels that oneDNN has compiled for bf16 products of so many shapes as its caches hold
#: (trainer/kernels.py limits them).
KERNELS_CPU = 150 * MIB

#: Assumed. CUDA's context, its libraries' code and cuBLAS's workspace.
PROCESS_CUDA = 800 * MIB


@dataclass(frozen=True)
class Architecture:
    """What of a model decides about memory. Widths are elements a token; `norms` is the summed
    width of a layer's norms, `intermediate` the inner width of an MLP with adapters (0: there is
    none), `experts` how many routed ones of width `expert` a token runs through."""

    layers: int
    hidden: int
    query: int
    key_value: int
    heads: int
    intermediate: int
    experts: int
    expert: int
    gated: bool
    norms: int
    rms_norms: bool
    vocabulary: int
    parameters: int
    packable: int
    largest_packed: int
    largest_layer: int
    adapted: int
    softcapped: bool

    @classmethod
    def of(cls, config: Any) -> Self:
        """Read a model's configuration and count its weights on the meta device."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = model.config.get_text_config()
        layer = next(
            module[0]
            for module in model.get_decoder().modules()
            if isinstance(module, torch.nn.ModuleList) and len(module) == text.num_hidden_layers
        )
        shapes = [layer_shape(linear) for linear in linear_layers(model).values()]
        fused = [weight.numel() for weight in model.parameters() if weight.ndim == 3]
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_value = (getattr(text, "num_key_value_heads", None) or heads) * width
        norms, rms = _norms(layer, text.hidden_size, heads * width, key_value)
        inner, routed, expert = _mlps(text, mixture=bool(fused))
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            query=heads * width,
            key_value=key_value,
            heads=heads,
            intermediate=inner,
            experts=routed,
            expert=expert,
            gated=any("gate" in name for name, _ in layer.named_parameters()),
            norms=norms,
            rms_norms=rms,
            vocabulary=text.vocab_size,
            parameters=sum(weight.numel() for weight in model.parameters()),
            packable=sum(out * into for out, into in shapes) + sum(fused),
            largest_packed=max(
                max((out * into for out, into in shapes), default=0),
                sum(fused) // text.num_hidden_layers,
            ),
            largest_layer=sum(weight.numel() for weight in layer.parameters()),
            adapted=sum(out + into for out, into in shapes),
            softcapped=bool(getattr(text, "attn_logit_softcapping", None)),
        )


@dataclass(frozen=True)
class Load:
    """Tokens whose activations wait for their gradient at one time, and the pairs of positions
    that attend to each other among them (rows of length n: n² each)."""

    tokens: int
    pairs: int


@dataclass(frozen=True)
class Setup:
    """How training holds things: the type of weights and activations, where, on how many devices,
    and whether each of those holds a share of the base (FSDP) or all of it (DDP)."""

    rank: int
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda"
    quantisation: str | None = None
    devices: int = 1
    sharded: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for."""

    base: int
    adapter: int
    activations: int
    attention: int
    logits: int
    workspace: int
    process: int

    @property
    def total(self) -> int:
        return sum(astuple(self))

    def parts(self) -> dict[str, int]:
        """Name → bytes, the total last."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "total": self.total,
        }


def estimate(architecture: Architecture, load: Load, setup: Setup) -> Memory:
    """Peak memory of one device in training, or on the CPU of the process."""
    size = setup.dtype.itemsize
    cuda = setup.device == "cuda"
    packed = architecture.packable if setup.quantisation == FOUR_BIT else 0
    base = packed * PACKED + (architecture.parameters - packed) * size
    trained = setup.rank * architecture.adapted
    adapter = trained * (2 * size + MASTER)
    workspace = load.tokens * (
        GRADIENT_FP32 * 4 * architecture.hidden
        + GRADIENT_OWN
        * size
        * max(architecture.intermediate, architecture.experts * architecture.expert)
    )
    if packed:
        workspace += architecture.largest_packed * size
    if setup.devices > 1:
        adapter += 4 * trained  # the gradients in one piece, to be summed over devices
    if setup.devices > 1 and setup.sharded:
        # one layer is gathered while the next one is on its way
        share = architecture.largest_layer / architecture.parameters
        workspace += int(2 * base * share)
        base /= setup.devices
    shares = 0 if cuda else load.pairs * architecture.layers * architecture.heads * size
    if architecture.softcapped:
        shares *= 2  # the slope of tanh is kept as well
    process = PROCESS_CUDA if cuda else PROCESS_CPU
    if not cuda and setup.dtype == torch.bfloat16:
        process += KERNELS_CPU
    return Memory(
        base=int(base),
        adapter=int(adapter),
        activations=int(
            HEAP * load.tokens * architecture.layers * token_bytes(architecture, setup)
        ),
        attention=int(HEAP * shares),
        logits=CHUNK * architecture.vocabulary * (LOGITS_FP32 + LOGITS_OWN * size),
        workspace=int(workspace),
        process=process,
    )


def token_bytes(architecture: Architecture, setup: Setup) -> int:
    """What one layer keeps of one token until its backward pass.

    Each linear layer keeps its input (layers with one input keep it once) and the adapter's low
    product; attention keeps queries, keys, values, and its result as the output layer's input; the
    MLP keeps what its activation function needs. A token that runs through several experts leaves
    all that behind in each.
    """
    size = setup.dtype.itemsize
    a = architecture
    norms = a.norms * (RMS_NORM if a.rms_norms else size)
    attention = size * (a.hidden + 2 * a.query + 2 * a.key_value)
    if setup.device == "cuda":
        # the kernels keep copies of keys and values and their own result
        attention += size * (a.query + 2 * a.key_value)
    mlp = 0
    if a.intermediate:
        mlp = size * (a.hidden + (GATED if a.gated else PLAIN) * a.intermediate)
    # what an expert says is kept until it is weighed
    mlp += a.experts * size * (EXPERT * a.expert + a.hidden)
    low = size * 7 * setup.rank
    return norms + attention + mlp + low


def peak_load(
    steps: Sequence[Sequence[tuple[Sequence[int], Sequence[int]]]],
    *,
    token_budget: int,
    held_tokens: int,
    devices: int = 1,
) -> Load:
    """The largest load of any step, whose rows are (prompt ids, completion ids).

    Rows are packed as training packs them: sorted, so that common beginnings count once, up to
    `token_budget` tokens a pack. Where all tokens of a device's packs are at most `held_tokens`,
    their activations wait together; else one pack at a time.
    """
    worst = Load(0, 0)
    for step in steps:
        packs = _packs([(*prompt, *completion) for prompt, completion in step], token_budget)
        shares: list[list[_Pack]] = [[] for _ in range(devices)]
        for pack in sorted(packs, key=lambda pack: -pack.tokens):
            min(shares, key=lambda share: sum(other.tokens for other in share)).append(pack)
        for share in shares:
            if sum(pack.whole for pack in share) <= held_tokens:
                loads = [Load(sum(p.tokens for p in share), sum(p.pairs for p in share))]
            else:
                loads = [Load(pack.tokens, pack.pairs) for pack in share]
            worst = max([worst, *loads], key=lambda load: (load.tokens, load.pairs))
    return worst


@dataclass(frozen=True)
class _Pack:
    tokens: int
    pairs: int
    whole: int


def _packs(rows: Sequence[tuple[int, ...]], token_budget: int) -> list[_Pack]:
    packs: list[_Pack] = []
    before: tuple[int, ...] = ()
    for row in sorted(rows):
        new = len(row) - _common(before, row)
        if packs and packs[-1].tokens + new <= token_budget:
            last = packs.pop()
            pack = _Pack(last.tokens + new, last.pairs + new * len(row), last.whole + len(row))
        else:
            pack = _Pack(len(row), len(row) ** 2, len(row))
        packs.append(pack)
        before = row
    return packs


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _mlps(text: Any, *, mixture: bool) -> tuple[int, int, int]:
    """Inner width of an MLP with adapters, routed experts a token runs through, their width."""
    whole = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    if not mixture:
        return whole, 0, 0
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    return shared, text.num_experts_per_tok, getattr(text, "moe_intermediate_size", None) or whole


def _norms(layer: Any, hidden: int, query: int, key_value: int) -> tuple[int, bool]:
    """Summed width of a layer's norms, and whether they are RMSNorms."""
    width, rms = 0, False
    for name, module in layer.named_modules():
        if "norm" not in type(module).__name__.lower():
            continue
        rms = rms or "rms" in type(module).__name__.lower()
        if module.weight.numel() == hidden:
            width += hidden
        else:  # of queries or keys, head by head
            width += query if name.rpartition(".")[2].startswith("q") else key_value
    return width, rms
