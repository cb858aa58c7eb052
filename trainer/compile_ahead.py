"""Compile the CPU backend's code before its first use, which would wait for it.

Compiled code depends on the type of numbers, not on the size of a model: a model of two tiny layers
is enough. The code is kept on disk. Call this in a process of its own: a compiler leaves about
80 MB in the process that ran it.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.backends import backend_for
from trainer.forward.logprobs import Row, score
from trainer.precision import automatic_precision


def compile_ahead(say: Callable[[str], None]) -> None:
    """Compile the code that the trainer and the engine need on this CPU, unless it is on disk."""
    backend = backend_for("cpu")
    if not backend.is_compiled("serving"):
        say("Compiling the engine's code for this processor (about 20 s) …")
        compile_serving()
    if not backend.is_compiled("training"):
        say("Compiling the trainer's code for this processor (about 10 s) …")
        compile_training()


def compile_serving() -> None:
    """Run one token through the engine's decoder, with weights in the type it loads them in."""
    backend_for("cpu").serving_decoder(_model(torch.bfloat16))


def compile_training() -> None:
    """Run one step forward and backward, in the type that `auto` chooses here."""
    model = _model(automatic_precision(torch.device("cpu")).dtype)
    model.get_input_embeddings().weight.requires_grad_()  # so that every layer runs backward
    prompt = tuple(number % 64 for number in range(80))
    rows: list[Row] = [(prompt, (1, 2, 3)), (prompt, (4, 5))]
    scored = score(model, rows, keep=True)
    scored.logprobs.sums().sum().backward()
    with torch.no_grad():
        scored.others([(6, 7), (8, 9)])


def _model(dtype: torch.dtype) -> Any:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(dtype).requires_grad_(requires_grad=False).eval()
