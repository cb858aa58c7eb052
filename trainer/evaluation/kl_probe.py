"""Estimate the KL divergence of the policy from the reference on the policy's own answers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from trainer.data.tokenise import Tokenised
from trainer.evaluation.generate import Answer, Sampling, generate
from trainer.forward.logprobs import Row, sequence_logprobs
from trainer.models.lora import Lora

PROMPTS = 8
# A probe of this length costs about as much as one step.
ANSWER_TOKENS = 48


@dataclass(frozen=True)
class KlEstimate:
    """mean over answers of (log π − log π₀)/tokens in nats per token, and each answer's value."""

    per_token: float
    answers: tuple[float, ...]


@dataclass(frozen=True)
class KlProbe:
    """A few fixed training prompts; step n always draws the same answers."""

    prompts: tuple[tuple[int, ...], ...]
    seed: int

    @classmethod
    def of(cls, examples: Sequence[Tokenised], *, seed: int) -> Self:
        """Pick the prompts from the training examples, one example a prompt."""
        by_prompt = {example.prompt_key: example.prompt for example in examples}
        prompts = [by_prompt[key] for key in sorted(by_prompt)]
        chosen = random.Random(seed).sample(prompts, min(PROMPTS, len(prompts)))  # noqa: S311
        return cls(tuple(chosen), seed)

    def measure(self, model: Any, tokenizer: Any, lora: Lora, *, step: int) -> KlEstimate:
        """Sample from the policy after `step` and estimate KL per token."""
        return kl_per_token(
            model,
            tokenizer,
            lora,
            self.prompts,
            max_tokens=ANSWER_TOKENS,
            seed=(self.seed * 1_000_003 + step) % 2**31,
        )


def kl_per_token(
    model: Any,
    tokenizer: Any,
    lora: Lora,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int,
) -> KlEstimate:
    """Sample one answer to each prompt from the model as it is, and estimate KL(π ‖ π₀)."""
    answers = generate(model, tokenizer, prompts, kl_sampling(max_tokens, seed=seed))
    return kl_of(model, lora, answers)


def kl_sampling(max_tokens: int, *, seed: int | None) -> Sampling:
    """Return how answers for a KL estimate are drawn: from π at temperature 1, not truncated.

    Any other temperature or a cut of the tail draws from another distribution than the scored
    one, and the estimate comes out too low, even below zero.
    """
    return Sampling(max_tokens=max_tokens, temperature=1.0, top_p=1.0, seed=seed)


def kl_of(model: Any, lora: Lora, answers: Sequence[Answer]) -> KlEstimate:
    """Estimate KL(π ‖ π₀) per token on at least one answer drawn from π by `kl_sampling`."""
    rows: list[Row] = [(answer.prompt_ids, answer.token_ids) for answer in answers]
    budget = 4096
    policy = sequence_logprobs(model, rows, budget)
    with lora.off():
        reference = sequence_logprobs(model, rows, budget)
    lengths = [len(answer.token_ids) for answer in answers]
    values = [
        difference / length
        for difference, length in zip((policy - reference).tolist(), lengths, strict=True)
    ]
    return KlEstimate(sum(values) / len(values), tuple(values))
