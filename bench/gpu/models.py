"""The models that are measured: SmolLM2, and a random one in the shape of Llama 2 7B.

Nothing is downloaded. SmolLM2 is what `make demo` put into var/models; without it, and in the dry
form, weights are random, which changes no speed. Random weights are made on the device: 14 GB take
minutes on a CPU and on a disk.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from bench.memory_table import MODELS
from tests.tiny import tiny_tokenizer
from trainer.models.loading import DEFAULT_MODEL, LoadedBase, fingerprint, load_base
from trainer.models.quantisation import quantise_4bit

ROOT = Path(__file__).resolve().parents[2]
SMOLLM2, SEVEN_B, TINY = "SmolLM2-135M", "7B", "tiny"
_SHAPES: dict[str, Any] = {
    SMOLLM2: LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    SEVEN_B: MODELS["7B"],
    TINY: LlamaConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
    ),
}


def prepared(name: str, directory: Path) -> Path:
    """Return the directory of a model: SmolLM2's own, or one with configuration and tokenizer and
    no weights."""
    packaged = ROOT / "var" / "models" / DEFAULT_MODEL
    if name == SMOLLM2 and (packaged / "config.json").exists():
        return packaged
    config = deepcopy(_SHAPES[name])
    tokenizer = tiny_tokenizer(context=config.max_position_embeddings)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = torch.bfloat16
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    target = directory / name
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def has_weights(path: Path) -> bool:
    """Return whether a model's directory holds more than its shape."""
    return any(path.glob("*.safetensors"))


def loaded(path: Path, *, quantisation: str | None, device: torch.device) -> LoadedBase:
    """Return a base in bfloat16 on the device: its own weights, or random ones."""
    if has_weights(path):
        return load_base(str(path), dtype="bfloat16", device=str(device), quantisation=quantisation)
    config = LlamaConfig.from_pretrained(path)
    with device:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.requires_grad_(requires_grad=False)
    identity = fingerprint(model)
    if quantisation is not None:
        quantise_4bit(model, device=device, dtype=torch.bfloat16)
    return LoadedBase(
        model=model.eval(),
        tokenizer=AutoTokenizer.from_pretrained(path),
        name=str(path),
        fingerprint=identity,
        device=device,
        dtype=torch.bfloat16,
        quantisation=quantisation,
    )
