"""The table of docs/models.md: memory of the KTO paper's published models on CUDA devices.

    python -m bench.published

Sizes are those of the bases' published configurations; nothing is downloaded.
"""

from dataclasses import dataclass, replace

from transformers import LlamaConfig, MistralConfig, MixtralConfig, PretrainedConfig

from bench.memory_table import PACK, RANK
from trainer.models.architecture import Architecture
from trainer.models.quantisation import FOUR_BIT
from trainer.planning.memory import Setup, estimate

MISTRAL_7B = MistralConfig()
MIXTRAL_8X7B = MixtralConfig()
MIXTRAL_8X22B = MixtralConfig(
    hidden_size=6144, intermediate_size=16384, num_hidden_layers=56, num_attention_heads=48
)
LLAMA_2_13B = LlamaConfig(
    hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
)


@dataclass(frozen=True)
class Published:
    """Models with one base, as the table names them."""

    names: str
    base: str
    config: PretrainedConfig


MODELS = (
    Published("Mistral-7B KTO, Eurus-7B KTO, GritLM-7B KTO", "Mistral 7B", MISTRAL_7B),
    Published("Psyfighter2-13B KTO", "Llama 2 13B", LLAMA_2_13B),
    Published("GritLM-8x7B KTO", "Mixtral 8x7B", MIXTRAL_8X7B),
    Published("Eurux-8x22B KTO", "Mixtral 8x22B", MIXTRAL_8X22B),
)

#: GiB of a GPU; a tenth is left for what the estimate does not know.
GPUS = (24, 80)
SPARE = 0.9
#: All of them have more than a billion parameters, so their layers are checkpointed.
_ONE = Setup(RANK, checkpointing=True)
_PACKED = replace(_ONE, quantisation=FOUR_BIT)
#: Ways to train, the simplest first. A base in four bits cannot be spread over devices.
WAYS = {
    "1 GPU": _ONE,
    "1 GPU, 4-bit": _PACKED,
    "2 GPUs, FSDP": replace(_ONE, devices=2, sharded=True),
    "4 GPUs, FSDP": replace(_ONE, devices=4, sharded=True),
    "8 GPUs, FSDP": replace(_ONE, devices=8, sharded=True),
}


def table() -> str:
    """Return Markdown with the GiB of each device for each way, and the simplest way that fits."""
    head = ("published model", "base", "parameters", "adapter", *WAYS)
    head += tuple(f"fits {size} GB" for size in GPUS)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for model in MODELS:
        cells = [model.names, model.base, *_row(Architecture.of(model.config))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _row(architecture: Architecture) -> list[str]:
    needs = {
        name: estimate(architecture, PACK, setup).total / 2**30 for name, setup in WAYS.items()
    }
    fitting = [
        next((name for name, need in needs.items() if need <= SPARE * size), "–") for size in GPUS
    ]
    return [
        f"{architecture.parameters / 1e9:.1f} billion",
        f"{RANK * architecture.adapted / 1e6:.1f} million",
        *(f"{need:.1f}" for need in needs.values()),
        *fitting,
    ]


if __name__ == "__main__":
    print(table(), end="")
