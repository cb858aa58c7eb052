"""vLLM on the prompts of decoding.py, without adapters; random weights are vLLM's own."""

import time
from importlib import import_module
from typing import Any

from bench.gpu.decoding import prompts
from bench.gpu.models import has_weights, prepared
from bench.gpu.parts import Job


def measure(job: Job) -> dict[str, Any]:
    """Return tokens per second by rows. vLLM takes the memory that it is given: no peak."""
    # by name: an optional package, which type checkers must do without
    vllm = import_module("vllm")
    path = prepared(job.part.model, job.directory)
    model = vllm.LLM(
        model=str(path),
        dtype="bfloat16",
        load_format="auto" if has_weights(path) else "dummy",
        skip_tokenizer_init=True,
        max_model_len=1024,
        gpu_memory_utilization=0.6,
    )

    def answered(count: int, tokens: int) -> float:
        sampling = vllm.SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        given = [{"prompt_token_ids": prompt} for prompt in prompts(count)]
        began = time.monotonic()
        found = model.generate(given, sampling, use_tqdm=False)
        seconds = time.monotonic() - began
        return sum(len(answer.outputs[0].token_ids) for answer in found) / seconds

    answered(max(job.rows), 4)
    return {
        "tokens_per_second": {str(count): answered(count, job.tokens) for count in job.rows},
        "notes": f"vLLM {vllm.__version__}",
    }
