"""Compiles the trainer's loops ahead of the first training, which would wait for them."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.logprobs import Row, score
from trainer.precision import automatic_precision


def compile_training() -> None:
    """Run one step of a model of two tiny layers on the CPU; what it compiles is kept on disk.

    Compiled code depends on the type of numbers, which is the one that `auto` chooses here, and
    not on the size of a model.
    """
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
    dtype = automatic_precision(torch.device("cpu")).dtype
    model = LlamaForCausalLM(config).to(dtype).requires_grad_(requires_grad=False).eval()
    model.get_input_embeddings().weight.requires_grad_()  # so that every layer runs backward
    prompt = tuple(number % 64 for number in range(80))
    rows: list[Row] = [(prompt, (1, 2, 3)), (prompt, (4, 5))]
    scored = score(model, rows, keep=True)
    scored.logprobs.sums().sum().backward()
    with torch.no_grad():
        scored.others([(6, 7), (8, 9)])
