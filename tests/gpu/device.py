"""The device of these tests, the mark that skips them where it is missing, and their models.

`PROSPECT_TEST_DEVICE=cpu` runs them on the CPU, to check the tests themselves: the CUDA backend
then computes attention without gradients by FlexAttention's eager kernel, and the rest as the
reference does.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.tiny import tiny_tokenizer
from trainer.models.loading import LoadedBase, load_base

DEVICE = os.environ.get("PROSPECT_TEST_DEVICE", "cuda")
#: Marks of each module here. On a GPU, warnings of its compilers are no failures.
on_device = [
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="needs a CUDA device: `make test-gpu` on a machine that has one",
    ),
    pytest.mark.filterwarnings("default"),
    pytest.mark.slow,
]

_SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.05,
    "tie_word_embeddings": False,  # tied random weights repeat the last token
}
#: Plain attention, normalised queries and keys, a window and soft-capped scores.
FAMILIES: dict[str, transformers.PretrainedConfig] = {
    "Llama": transformers.LlamaConfig(**_SIZES),
    "Qwen3": transformers.Qwen3Config(**_SIZES),
    "Gemma2": transformers.Gemma2Config(
        **_SIZES,
        query_pre_attn_scalar=64,
        sliding_window=24,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
    ),
}


def base_dir(directory: Path, family: str) -> Path:
    """Save a small random model of a family with a tokenizer; return `directory`."""
    tokenizer = tiny_tokenizer()
    config = FAMILIES[family]
    config.vocab_size = len(tokenizer)
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(20)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def base_on_device(directory: Path, dtype: str, quantisation: str | None = None) -> LoadedBase:
    """Load a model onto the device."""
    return load_base(str(directory), dtype=dtype, device=DEVICE, quantisation=quantisation)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖."""
    difference = (found.float() - expected.float()).norm()
    return float(difference / expected.float().norm().clamp(min=1e-12))
