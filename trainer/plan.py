"""`python -m trainer plan RUN_DIR`: what a run would train on and how long it would take."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.batches import steps_per_epoch
from trainer.config import TrainConfig
from trainer.errors import TrainerError
from trainer.examples import Example
from trainer.losses import lambdas
from trainer.model import resolve_device, resolve_dtype
from trainer.run import read_run
from trainer.tokenise import tokenise

# Forward passes' worth of work for a token: gradient step about 3, z₀'s policy and reference 1
# each; the reference of the example itself once a run.
_PASSES_PER_EPOCH = 5.0
_PASSES_ONCE = 1.0
# Share of the matrix-multiplication speed below that a step reaches: the rest is attention,
# normalisation, adapters and small shapes. Measured with bench/sweep.py.
_EFFICIENCY = 0.45
_START_SECONDS = 10.0


def plan(run_dir: Path) -> dict[str, Any]:
    """Counts, λ, steps, tokens of one epoch and estimated seconds; loads no weights.

    Raises Refused exactly where `train` would refuse before loading the model.
    """
    config, examples = read_run(run_dir)
    desirable = sum(example.label for example in examples)
    weights = lambdas(
        desirable,
        len(examples) - desirable,
        given_d=config.lambda_d,
        given_u=config.lambda_u,
    )
    tokens = _tokens(config, examples)
    passes = config.epochs * _PASSES_PER_EPOCH + _PASSES_ONCE
    operations = 2.0 * _parameters(config.base_model) * tokens * passes
    seconds = _START_SECONDS + operations / (_operations_per_second(config) * _EFFICIENCY)
    return {
        "examples": len(examples),
        "desirable": desirable,
        "undesirable": len(examples) - desirable,
        "lambda_d": weights.desirable,
        "lambda_u": weights.undesirable,
        "steps": config.epochs * steps_per_epoch(len(examples), config.batch_size),
        "tokens": tokens,
        "estimated_seconds": round(seconds),
    }


def _tokens(config: TrainConfig, examples: list[Example]) -> int:
    """Prompt and completion tokens of one epoch; served ids need no tokeniser."""
    known = [
        len(example.prompt_token_ids) + len(example.completion_token_ids)
        for example in examples
        if example.prompt_token_ids and example.completion_token_ids
    ]
    if len(known) == len(examples) and max(known) <= config.max_length:
        return sum(known)
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.base_model)
    except (OSError, ValueError) as error:
        raise TrainerError(
            f"the tokeniser of {config.base_model} does not load: {error}"
        ) from error
    found = [
        tokenise(example, tokenizer, eos=0, max_length=config.max_length) for example in examples
    ]
    return sum(item.length for item in found if item is not None)


def _parameters(base_model: str) -> int:
    """Number of weights, from the architecture alone."""
    try:
        architecture = AutoConfig.from_pretrained(base_model)
    except (OSError, ValueError) as error:
        raise TrainerError(f"the base model {base_model} does not load: {error}") from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture)
    return sum(parameter.numel() for parameter in model.parameters())


def _operations_per_second(config: TrainConfig) -> float:
    """Speed of a matrix product of the usual size on the device and type of the run."""
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    left = torch.ones(512, 1024, device=device, dtype=dtype)
    right = torch.ones(1024, 1024, device=device, dtype=dtype)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(4):
            (left @ right)[0, 0].item()  # reading a value waits for the device
        times.append(time.perf_counter() - started)
    return 4 * 2.0 * 512 * 1024 * 1024 / min(times)
