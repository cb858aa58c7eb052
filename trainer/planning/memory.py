"""How much memory training takes, from the architecture alone.

What is held while a step runs, in bytes, for weights and activations of b bytes an element:

    base         parameters · b; in 4 bits PACKED a packed weight, b for the rest
    adapter      rank · Σ (in + out) numbers, each as the adapter (b), its gradient (b), an fp32
                 master (4), the master's gradient (4) and AdamW's two moments (8)
    activations  what the backward pass reads again, for every token that waits for its gradient:
                 `token_bytes` a layer
    attention    the softmax of the scores: b for each layer, head and pair of positions; none on
                 CUDA, whose kernels compute it again
    logits       of one chunk of positions, with their gradient
    workspace    gradients on their way through one layer; a layer that is unpacked or gathered;
                 with adapted experts, those of one layer with the adapter added, and the gradient
    process      Python, its libraries, and what the device's runtime takes for itself

Constants that were measured or assumed say so; `bench/plan.py` measures them again.
"""

from dataclasses import astuple, dataclass, fields

import torch

from trainer.backends import backend_for
from trainer.forward.head import CHUNK
from trainer.models.architecture import Architecture
from trainer.models.quantisation import FOUR_BIT

MIB = 2**20

#: Bytes of a weight in NF4: half a byte, one byte of scale for 64 of them, and four bytes of scale
#: of the scales for 256 of those (Dettmers et al. 2023, Section 3).
PACKED = 0.5 + 1 / 64 + 4 / (64 * 256)

#: fp32 master, its gradient, AdamW's two moments.
MASTER = 4 + 4 + 8

#: RMSNorm computes in fp32 and keeps that copy of its input; LayerNorm keeps the input itself.
RMS_NORM = 4

#: Tensors of the MLP's inner width that are kept. Gated: gate, its activation, up, and the product
#: that goes down. Plain: GELU by its formula keeps four on the way to what goes down.
GATED, PLAIN = 4, 5

#: The compiled decoder keeps less: the norm's input once, in the model's type; no activation.
GATED_LEAN = 3

#: The same of a routed expert: what goes down is not kept, since no adapter reads it.
EXPERT = 3

#: Linear layers with an adapter in a layer of the model: each keeps `rank` numbers a token.
LOW = 7

#: Logits and their gradient, in the model's type; on CUDA an fp32 copy of the chunk as well.
LOGITS, LOGITS_CUDA = 2, 4

#: Tensors of the hidden width in fp32, and of the MLP's width in the model's type, that the
#: backward pass holds for a token at one time, in one layer.
GRADIENT_HIDDEN, GRADIENT_INNER = 3, 4

#: Measured. What malloc holds on top of what is in use: pieces of all sizes come and go, and holes
#: stay. CUDA's caching allocator rounds up as well; assumed alike.
HEAP = 1.2

#: Measured. A process that has imported the trainer and loaded a tokeniser.
PROCESS_CPU = 400 * MIB

#: Measured. Kernels that oneDNN keeps for bf16 products (trainer/onednn_cache.py limits them).
KERNELS_CPU = 50 * MIB

#: Assumed. CUDA's context, its libraries' code and cuBLAS's workspace.
PROCESS_CUDA = 800 * MIB


@dataclass(frozen=True)
class Load:
    """Tokens whose activations wait for their gradient at one time, and the pairs of positions
    that attend to each other among them (a row of length n: n²)."""

    tokens: int
    pairs: int


@dataclass(frozen=True)
class Setup:
    """How training holds things: the type of weights and activations, where, on how many devices,
    whether each of those holds a share of the base (FSDP) or all of it (DDP), and whether layers
    keep their input only (activation checkpointing), and whether routed experts are adapted."""

    rank: int
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda"
    quantisation: str | None = None
    devices: int = 1
    sharded: bool = False
    checkpointing: bool = False
    experts: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for; on the CPU those of the process."""

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
        """Return bytes by name, the total last."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**named, "total": self.total}


def estimate(architecture: Architecture, load: Load, setup: Setup) -> Memory:
    """Return the peak memory of one device while it trains."""
    a, size, cuda = architecture, setup.dtype.itemsize, setup.device == "cuda"
    packed = a.packable if setup.quantisation == FOUR_BIT else 0
    base = packed * PACKED + (a.parameters - packed) * size
    trained = setup.rank * (a.adapted + (a.experts_adapted if setup.experts else 0))
    adapter = trained * (2 * size + MASTER)
    inner = max(a.intermediate, a.experts * a.expert)
    workspace = load.tokens * (GRADIENT_HIDDEN * 4 * a.hidden + GRADIENT_INNER * size * inner)
    if setup.experts:
        workspace += 2 * size * (a.fused // a.layers)
    if packed:
        workspace += a.largest_packed * size
    if setup.devices > 1:
        adapter += 4 * trained  # all gradients in one piece, to be summed over devices
    if setup.devices > 1 and setup.sharded:
        # one layer is gathered while the next one is on its way
        workspace += int(2 * base * a.largest_layer / a.parameters)
        base /= setup.devices
    shares = 0 if cuda else load.pairs * a.layers * a.heads * size
    if a.softcapped:
        shares *= 2  # the slope of tanh is kept as well
    kept = a.layers * token_bytes(a, setup)
    if setup.checkpointing:  # every layer's input, and one layer at a time as a whole
        kept = a.layers * size * a.hidden + token_bytes(a, setup)
        shares //= a.layers
    process = PROCESS_CUDA if cuda else PROCESS_CPU
    if not cuda and setup.dtype == torch.bfloat16:
        process += KERNELS_CPU
    return Memory(
        base=int(base),
        adapter=adapter,
        activations=int(HEAP * load.tokens * kept),
        attention=int(HEAP * shares),
        logits=CHUNK * a.vocabulary * (LOGITS * size + (LOGITS_CUDA if cuda else 0)),
        workspace=workspace,
        process=process,
    )


def token_bytes(architecture: Architecture, setup: Setup) -> int:
    """Return what one layer keeps of one token until its backward pass, the attention's softmax
    left out.

    Each linear layer with an adapter keeps its input (once, where several share it) and the low
    product; attention keeps queries, keys and values, and its result is an input; the MLP keeps
    what its activation function needs, in every expert that a token runs through.
    """
    a, size = architecture, setup.dtype.itemsize
    lean = backend_for(setup.device).trains(a.layer_class)
    norms = a.norms * (RMS_NORM if a.rms_norms and not lean else size)
    attention = size * (a.hidden + 2 * a.query + 2 * a.key_value)
    if setup.device == "cuda":  # copies of keys and values, and the kernel's own result
        attention += size * (a.query + 2 * a.key_value)
    mlp = 0
    if a.intermediate:
        gated = GATED_LEAN if lean else GATED
        mlp = size * (a.hidden + (gated if a.gated else PLAIN) * a.intermediate)
    # an expert's output is kept until it is weighted
    mlp += a.experts * size * (EXPERT * a.expert + a.hidden)
    return norms + attention + mlp + LOW * size * setup.rank
