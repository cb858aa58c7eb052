"""One optimiser step's loss and gradient: z₀ first, without gradient, then the examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.batches import Step, micro_batches
from trainer.logprobs import Row, sequence_logprobs
from trainer.lora import Lora
from trainer.losses import Lambdas, Loss, kl_reference_point
from trainer.reference import ReferenceCache
from trainer.tokenise import Tokenised


@dataclass(frozen=True)
class StepResult:
    """What a step measured; rewards r in nats, in the order of the step's examples."""

    loss: float
    z0: float
    z0_unclamped: float
    rewards: tuple[float, ...]
    tokens: int


@dataclass(frozen=True)
class StepRunner:
    """Computes steps of one run; `after_micro_batch` runs after each backward pass, and may raise
    to interrupt the step."""

    model: Any
    lora: Lora
    reference: ReferenceCache
    examples: Sequence[Tokenised]
    loss: Loss
    lambdas: Lambdas
    beta: float
    max_length: int
    token_budget: int
    after_micro_batch: Callable[[], None]

    def backward(self, step: Step) -> StepResult:
        """Add the gradient of the step's loss to the adapter's parameters.

        The step's loss is the mean over its examples of weight × loss, whatever the micro-batches:
        z₀ belongs to the step, therefore all mismatched pairs are scored before the first example.
        """
        chosen = [self.examples[index] for index in step.examples]
        rows = [(example.prompt, example.completion) for example in chosen]
        pairs = self._pairs(step)
        z0, unclamped = kl_reference_point(self._rewards(pairs))
        known = torch.tensor(self._reference(rows), device=z0.device)
        labels = torch.tensor([example.label for example in chosen], device=z0.device)
        weights = torch.tensor([example.weight for example in chosen], device=z0.device)

        total = 0.0
        rewards = [0.0] * len(rows)
        self.lora.train()
        for group in micro_batches([len(x) + len(y) for x, y in rows], self.token_budget):
            picked = torch.tensor(group, device=z0.device)
            logprobs = sequence_logprobs(self.model, [rows[position] for position in group])
            reward = logprobs - known[picked]
            losses = self.loss(reward, labels[picked], z0, self.beta, self.lambdas)
            loss = (losses * weights[picked]).sum() / len(rows)
            loss.backward()
            total += loss.item()
            for position, value in zip(group, reward.tolist(), strict=True):
                rewards[position] = value
            self.after_micro_batch()
        self.lora.train(False)
        return StepResult(
            loss=total,
            z0=z0.item(),
            z0_unclamped=unclamped.item(),
            rewards=tuple(rewards),
            tokens=sum(len(x) + len(y) for x, y in rows + pairs),
        )

    def _pairs(self, step: Step) -> list[Row]:
        """Each prompt with the completion of another one, cut where it would pass max_length."""
        return [
            (
                self.examples[index].prompt,
                self.examples[other].completion[
                    : self.max_length - len(self.examples[index].prompt)
                ],
            )
            for index, other in zip(step.examples, step.mismatched, strict=True)
        ]

    def _rewards(self, rows: Sequence[Row]) -> Tensor:
        """r of each row, shape (B,), without gradient and without dropout."""
        self.lora.train(False)
        with torch.no_grad():
            policy = batched_logprobs(self.model, rows, self.token_budget)
        return policy - torch.tensor(self._reference(rows), device=policy.device)

    def _reference(self, rows: Sequence[Row]) -> list[float]:
        with self.lora.off():
            return self.reference.logprobs(self.model, rows, token_budget=self.token_budget)


def batched_logprobs(model: Any, rows: Sequence[Row], token_budget: int) -> Tensor:
    """sequence_logprobs of any number of rows, shape (B,), in micro-batches, without gradient."""
    values: dict[int, Tensor] = {}
    with torch.no_grad():
        for group in micro_batches([len(x) + len(y) for x, y in rows], token_budget):
            found = sequence_logprobs(model, [rows[position] for position in group])
            values.update(zip(group, found, strict=True))
    return torch.stack([values[position] for position in range(len(rows))])
