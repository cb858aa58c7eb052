"""A base model from a GGUF file: unpacked once into a directory that every other part loads."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers

from trainer.errors import Refused, TrainerError
from trainer.models.template_check import template_check

#: Words as GPT-4's tokenizer splits them, with this many digits in one piece.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS, LLAMA3_WORDS = _WORDS.format(digits=""), _WORDS.format(digits="{1,3}")

#: Space in bytes that unpacking needs for a parameter in bfloat16.
BYTES = 2


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _own_split(*before: pre_tokenizers.PreTokenizer) -> pre_tokenizers.PreTokenizer:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence([*before, last]) if before else last


#: How text is split before merging, by the name that llama.cpp has for it.
SPLITS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _own_split,
    "smollm": lambda: _own_split(pre_tokenizers.Digits(individual_digits=True)),
    "qwen2": lambda: _split(QWEN2_WORDS),
    "llama-bpe": lambda: _split(LLAMA3_WORDS),
}


def unpack_gguf(file: Path, target: Path, *, say: Callable[[str], None] = print) -> Path:
    """Write a GGUF file as a model directory, whole or not at all; returns `target`.

    Weights are stored as safetensors in bfloat16: those of a quantised file as what they stand
    for. Raises Refused for a file that is damaged, a part of a model, of an unknown kind, without a
    usable chat template, or larger than the free space, and when `target` exists; OSError.
    """
    if target.exists() or target.is_symlink():
        raise Refused(f"{target} exists already: name a model that does not, nothing is replaced")
    split, parameters = _read_header(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < BYTES * parameters:
        raise Refused(
            f"The unpacked model takes {BYTES * parameters / 2**30:.1f} GiB, and {target.parent} "
            f"has {free / 2**30:.1f} GiB free"
        )
    say(f"Unpacking {file.name}: {parameters / 1e6:,.0f} million parameters …")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        convert(file, partial, split=split)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def _read_header(file: Path) -> tuple[str, int]:
    """Return how the file's tokenizer splits text, and the number of parameters. Raises Refused."""
    import gguf

    if not file.is_file():
        raise Refused(f"There is no file {file}")
    try:
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise Refused(f"{file} is no complete GGUF file: {error}") from error
    if int(fields.get("split.count", 1)) > 1:
        raise Refused(
            f"{file} is one part of a model: join the parts with llama.cpp's `llama-gguf-split "
            "--merge` first"
        )
    kind, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or split not in SPLITS:
        raise Refused(
            f"Its tokenizer is {kind!r} with the split {split!r}. Known is the byte-level BPE "
            f"(gpt2) with {', '.join(SPLITS)}: use the model's own directory or hub id instead"
        )
    if not fields.get("tokenizer.chat_template"):
        raise Refused(f"{file} has no chat template, so that no conversation can be written for it")
    return str(split), parameters


def convert(gguf: Path, target: Path, *, split: str | None = None) -> None:
    """Write safetensors in bfloat16, tokenizer and template of a GGUF file to `target`.

    `split` is a key of SPLITS; None keeps what transformers makes of the file. Raises Refused for
    an unusable chat template, TrainerError if transformers does not know the architecture.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        template_check(tokenizer)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise TrainerError(f"transformers cannot read {gguf.name}: {error}") from error
    # a model that was loaded from GGUF refuses to be saved: a fresh one takes its weights
    fresh: Any = type(model)(model.config).to(torch.bfloat16)
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = model.generation_config
    fresh.config.name_or_path = ""
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)
    if split is not None:
        _split_as(target / "tokenizer.json", split)
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _split_as(path: Path, split: str) -> None:
    """Let a stored tokenizer split text as the GGUF file says: transformers does not read that."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.pre_tokenizer = SPLITS[split]()
    if split == "llama-bpe":  # a word that is a token is not merged from its bytes
        tokenizer.model.ignore_merges = True
    tokenizer.save(str(path))
