"""A complete tiny base model on disk: random weights, a real tokenizer and a chat template.

It replaces a real model directory and loads in milliseconds instead of seconds. It is the same in
every process: weights from a fixed seed, a tokenizer trained on the text below.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from trainer.artifacts.adapter_directory import Manifest, write_adapter
from trainer.models.loading import LoadedBase
from trainer.models.lora import linear_layers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = (
    "Write a short answer to the question and stop when it is said.",
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "Bread needs flour, water, salt, yeast and time; the oven does the rest.",
    "system user assistant: be honest, short, on the point, and finish the sentence.",
    "Ein Satz mit Umlauten: Äpfel, Öl, Übung, groß. Déjà vu, naïve, façade, señor.",
)


def make_tiny_model(
    directory: Path, *, vocabulary: int = 384, layers: int = 2, context: int = 512
) -> Path:
    """Save a tiny Llama (float32) and its tokenizer; return `directory`.

    Its answers are noise, often with invalid UTF-8, which a detokeniser must handle.
    """
    logging.disable_progress_bar()
    tokenizer = tiny_tokenizer(vocabulary, context=context)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.15,  # peaked enough that greedy answers differ between prompts
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(20)
        model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_random_model(
    directory: Path, kind: type[PretrainedConfig], sizes: dict[str, Any]
) -> PreTrainedTokenizerFast:
    """Save a random model of an architecture and the tiny tokenizer; return the tokenizer."""
    tokenizer = tiny_tokenizer()
    config = kind(
        **sizes,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(20)
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return tokenizer


def tiny_tokenizer(vocabulary: int = 384, *, context: int = 512) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE: all bytes, a few merges, ChatML's special tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_tiny_adapter(
    directory: Path,
    base: LoadedBase,
    *,
    name: str = "starter@1",
    seed: int = 1,
    rank: int = 4,
    strength: float = 0.5,
    layers: Sequence[str] | None = None,
    rslora: bool = False,
) -> Manifest:
    """Write a random LoRA adapter for `base` that is large enough to change its answers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {key: linear.weight.shape for key, linear in linear_layers(base.model).items()}
    chosen = {key: shapes[key] for key in (shapes if layers is None else layers)}
    tensors = {}
    for key, (out_features, in_features) in chosen.items():
        a = torch.randn(rank, in_features, generator=generator) / in_features**0.5
        b = torch.randn(out_features, rank, generator=generator) * strength / (2 * rank**0.5)
        tensors[f"base_model.model.{key}.lora_A.weight"] = a
        tensors[f"base_model.model.{key}.lora_B.weight"] = b
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "bias": "none",
        "lora_alpha": 2 * rank,
        "r": rank,
        "target_modules": sorted(chosen),
        "inference_mode": True,
        "use_rslora": rslora,
    }
    return write_adapter(
        directory,
        name=name,
        tensors=tensors,
        adapter_config=config,
        base_model=base.name,
        base_sha256=base.fingerprint,
        rank=rank,
        created="2026-01-01T00:00:00+00:00",
        train={},
        card="# A random adapter\n",
    )
