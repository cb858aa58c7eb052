"""Our engine's batch: tokens per second of greedy answers, from their prompts to the last token."""

import random
import time
from typing import Any

import torch

from bench.gpu import memory
from bench.gpu.models import loaded, prepared
from bench.gpu.parts import Job
from trainer.backends import serving_decoder
from trainer.engine.batch import Batch, Row
from trainer.engine.sampling import Sampling

_PROMPT_TOKENS = 64


def prompts(count: int) -> list[list[int]]:
    """Return prompts of 64 random tokens that every vocabulary here has."""
    rng = random.Random(count)
    return [[rng.randrange(10, 250) for _ in range(_PROMPT_TOKENS)] for _ in range(count)]


def measure(job: Job) -> dict[str, Any]:
    """Return tokens per second by rows, and peak memory."""
    device = torch.device(job.device)
    path = prepared(job.part.model, job.directory)
    base = loaded(path, quantisation=job.part.quantisation, device=device)
    decoder = serving_decoder(base.model)

    def answered(count: int, tokens: int) -> float:
        sampling = Sampling(max_tokens=tokens, temperature=0, ignore_eos=True)
        rows = [
            Row.new(prompt, sampling, tokenizer=base.tokenizer, eos=frozenset())
            for prompt in prompts(count)
        ]
        batch = Batch(base.model, decoder)
        began = time.monotonic()
        batch.join(rows)
        while batch.rows:
            batch.step()  # reads the chosen tokens, and so waits for the device
        return count * tokens / (time.monotonic() - began)

    answered(max(job.rows), 4)
    memory.reset(device)
    found = {str(count): answered(count, job.tokens) for count in job.rows}
    return {"tokens_per_second": found, "peak": memory.peak(device)}
