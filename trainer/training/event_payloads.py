"""Payloads of the events `start` and `step`."""

from collections.abc import Sequence
from typing import Any

from trainer.artifacts.environment import hardware, libraries
from trainer.data.batches import Step
from trainer.forward.logprobs import shares_prefixes
from trainer.training.run_directory import LoadedRun
from trainer.training.step import StepResult


def start_values(run: LoadedRun, *, resumed_from: int, processes: int) -> dict[str, Any]:
    """Return the payload of `start`, for a new or a resumed run."""
    return {
        "total_steps": run.total_steps,
        "examples": len(run.examples),
        "desirable": run.desirable,
        "undesirable": run.undesirable,
        "lambda_d": run.lambdas.desirable,
        "lambda_u": run.lambdas.undesirable,
        "beta": run.config.beta,
        "learning_rate": run.config.learning_rate,
        "device": str(run.base.device),
        "dtype": str(run.base.dtype).removeprefix("torch."),
        "precision": run.base.precision,
        "packs": run.packs,
        "start_adapter": None if run.start is None else run.start.name,
        "processes": processes,
        "resumed_from_step": resumed_from,
        "prompts_truncated": run.truncated,
        "tokens_cut": run.tokens_cut,
        "shares_prefixes": shares_prefixes(run.base.model),
        "libraries": libraries(),
        "hardware": hardware(),
    }


def step_values(
    run: LoadedRun, step: Step, result: StepResult, *, number: int, total_seconds: float
) -> dict[str, Any]:
    """Return the payload of `step`: rewards and KL in nats, None for a class without examples.

    `total_seconds` is the time of all steps so far, from which the remaining time is estimated.
    """
    examples = [run.examples[index] for index in step.examples]
    rewards = list(zip(examples, result.rewards, strict=True))
    up = _mean([reward for example, reward in rewards if example.label])
    down = _mean([reward for example, reward in rewards if not example.label])
    total = run.total_steps
    return {
        "step": number,
        "total_steps": total,
        "epoch": round(number * run.config.epochs / total, 4),
        "loss": result.loss,
        "kl": result.z0,
        "kl_unclamped": result.z0_unclamped,
        "reward_desirable": up,
        "reward_undesirable": down,
        "margin": None if up is None or down is None else up - down,
        "completion_tokens": _mean([float(len(example.completion)) for example in examples]),
        "tokens": result.tokens,
        "eta_seconds": round(total_seconds / number * (total - number), 1),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
