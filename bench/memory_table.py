"""The table of docs/operations.md: memory of models of common sizes on CUDA devices."""

from dataclasses import replace

from transformers import LlamaConfig, MixtralConfig, PretrainedConfig

from trainer.models.architecture import Architecture
from trainer.models.quantisation import FOUR_BIT
from trainer.planning.memory import Load, Setup, estimate
from trainer.planning.packs import LARGE

#: Sizes of Llama 3.2, Llama 2, Llama 1 and Mixtral as published.
MODELS: dict[str, PretrainedConfig] = {
    "1B": LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        bos_token_id=128_000,
        eos_token_id=128_001,
    ),
    "7B": LlamaConfig(hidden_size=4096, intermediate_size=11008),
    "13B": LlamaConfig(
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
    ),
    "30B": LlamaConfig(
        hidden_size=6656,
        intermediate_size=17920,
        num_hidden_layers=60,
        num_attention_heads=52,
    ),
    "8x7B": MixtralConfig(),
}

RANK = 16
#: A pack in rows of 512 tokens: half of the default `token_budget`.
PACK = Load(tokens=2048, pairs=2048 * 512)

_HEAD = (
    "model",
    "weights",
    "parameters",
    "base",
    "adapter",
    "activations",
    "logits, workspace, runtime",
    "1 GPU",
    "2, 4, 8 (DDP)",
    "2 (FSDP)",
    "4 (FSDP)",
    "8 (FSDP)",
    "1,024 tokens more",
)


def table() -> str:
    """Return Markdown with the GiB of each device."""
    lines = [f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    for name, config in MODELS.items():
        architecture = Architecture.of(config)
        for quantisation in (None, FOUR_BIT):
            cells = [name, "4-bit" if quantisation else "bf16", *_row(architecture, quantisation)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _row(architecture: Architecture, quantisation: str | None) -> list[str]:
    one = Setup(RANK, quantisation=quantisation, checkpointing=architecture.parameters > LARGE)
    found = estimate(architecture, PACK, one)
    copies = estimate(architecture, PACK, replace(one, devices=8))
    shares = [
        estimate(architecture, PACK, replace(one, devices=devices, sharded=True))
        for devices in (2, 4, 8)
        if quantisation is None  # the configuration refuses a packed base that is spread
    ]
    more = estimate(architecture, replace(PACK, tokens=PACK.tokens + 1024), one)
    return [
        f"{architecture.parameters / 1e9:.1f} billion",
        *map(
            _gib,
            (
                found.base,
                found.adapter,
                found.activations,
                found.logits + found.workspace + found.process,
                found.total,
                copies.total,
            ),
        ),
        *([_gib(share.total) for share in shares] or ["–"] * 3),
        _gib(more.total - found.total),
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


if __name__ == "__main__":
    print(table(), end="")
