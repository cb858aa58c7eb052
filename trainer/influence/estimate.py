"""The influence of training examples on a validation loss, by the gradients at a run's adapter.

A gradient step on an example lowers the validation loss where the two gradients point the same way:
their dot product is the example's influence (TracIn, Pruthi et al. 2020, arXiv 2002.08484, Eq. 4,
with equal weights instead of learning rates, which AdamW does not keep to). One example's gradient
is held at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.batches import Step
from trainer.errors import Refused
from trainer.forward.logprobs import Row, score
from trainer.forward.parallel import concurrent_packs, parallel_map
from trainer.losses import ExampleLoss, LikelihoodLoss, summed_rewards, update_anchor
from trainer.training.loop import Trainer


@dataclass(frozen=True)
class Influence:
    """The dot product of the validation loss's gradient with that of one training example's loss,
    at weight 1: with the label up, and with the label down. Positive: learning from it lowers the
    validation loss."""

    up: float
    down: float

    def __add__(self, other: "Influence") -> "Influence":
        return Influence(self.up + other.up, self.down + other.down)

    def __truediv__(self, number: int) -> "Influence":
        return Influence(self.up / number, self.down / number)


@dataclass(frozen=True)
class Point:
    """The measures at one set of the adapter's values: by example, and the validation loss."""

    influence: Mapping[str, Influence]
    validation_loss: float


def influence_at(
    trainer: Trainer, steps: Sequence[Step], *, on_progress: Callable[[int], None]
) -> Point:
    """Return the influence of the examples of `steps` at the adapter's present values.

    The reference log-probabilities of all rows must be in the trainer's cache. `on_progress` gets
    the number of finished examples; what it raises ends the work. Raises Refused where there are
    too few validation examples, or for a loss of pairs.
    """
    loss = trainer.loss
    if not isinstance(loss, ExampleLoss | LikelihoodLoss):
        raise Refused(
            f"{loss.name} learns from pairs: an answer has no gradient without its partner's"
        )
    measured = [
        trainer.runner.measure(step, beta=trainer.config.beta, mean_reward=0.0) for step in steps
    ]
    mean = _mean_reward(trainer, steps, [reward for each in measured for reward in each.rewards])
    direction, validation_loss = _validation_gradient(trainer, mean)
    found: dict[str, Influence] = {}
    for step, values in zip(steps, measured, strict=True):
        anchor = values.z0 if loss.anchor == "z0" else mean
        lengths = [len(trainer.data.examples[index].completion) for index in step.examples]
        slopes = _slopes(trainer, loss, values.rewards, lengths, anchor)
        for index, slope, dot in zip(
            step.examples, slopes, _dot_products(trainer, step, direction), strict=True
        ):
            found[trainer.data.examples[index].id] = Influence(slope[0] * dot, slope[1] * dot)
            on_progress(len(found))
    return Point(found, validation_loss)


def _mean_reward(trainer: Trainer, steps: Sequence[Step], rewards: Sequence[float]) -> float:
    """Return the mean that BCO compares with, over all steps; 0 for other losses."""
    if trainer.loss.anchor != "mean":
        return 0.0
    labels = [trainer.data.examples[index].label for step in steps for index in step.examples]
    mean = 0.0
    for _ in range(len(steps)):
        mean = update_anchor(mean, torch.tensor(rewards), torch.tensor(labels))
    return mean


def _validation_gradient(trainer: Trainer, mean: float) -> tuple[list[Tensor], float]:
    """Return the gradient of the validation loss by the adapter's matrices, and the loss."""
    step = trainer.validation_step
    if step is None:
        raise Refused(
            "too few validation examples: eight or more are needed, of both labels and of two "
            "prompts"
        )
    result = trainer.validation.backward(step, beta=trainer.config.beta, mean_reward=mean)
    scale = _scale(trainer)
    return [gradient / scale for gradient in trainer.masters.gradients()], result.loss


def _scale(trainer: Trainer) -> float:
    """Return what losses are multiplied by before the backward pass; 1 except in float16."""
    return float(trainer.loss_scale.scaled(torch.ones((), device=trainer.data.base.device)))


def _slopes(
    trainer: Trainer,
    loss: ExampleLoss | LikelihoodLoss,
    rewards: Sequence[float],
    lengths: Sequence[int],
    anchor: float,
) -> list[tuple[float, float]]:
    """Return by how much each example's loss changes with its reward, as an up and as a down; for
    a loss without a reference with its log-probability, and 0 as a down, which it leaves out."""
    values = torch.tensor(rewards, dtype=torch.float32, requires_grad=True)
    if isinstance(loss, LikelihoodLoss):
        (ups,) = torch.autograd.grad(loss.function(values, torch.tensor(lengths)).sum(), values)
        return [(up, 0.0) for up in ups.tolist()]
    sides = []
    for label in (True, False):
        labels = torch.full((len(rewards),), label)
        total = loss.function(
            values, labels, torch.tensor(anchor), trainer.config.beta, trainer.data.lambdas
        ).sum()
        sides.append(torch.autograd.grad(total, values)[0].tolist())
    return list(zip(*sides, strict=True))


def _dot_products(trainer: Trainer, step: Step, direction: Sequence[Tensor]) -> Iterator[float]:
    """Yield the dot product of `direction` with the gradient of each example's reward."""
    rows: list[Row] = trainer.runner.rows(step)[0]
    model, device = trainer.data.base.model, trainer.data.base.device
    scale = _scale(trainer)

    def one(row: Row) -> float:
        logprobs = score(model, [row]).logprobs
        ratios = logprobs.values - trainer.reference[row].to(device)
        reward = summed_rewards(ratios, logprobs.owners, examples=1, clamp=trainer.loss.clamp)
        gradients = trainer.masters.gradients_of(trainer.loss_scale.scaled(reward.sum()))
        dots = [
            torch.dot(own.flatten(), new.float().flatten())
            for own, new in zip(direction, gradients, strict=True)
            if new is not None
        ]
        return float(torch.stack(dots).sum()) / scale if dots else 0.0

    with torch.enable_grad():
        count = concurrent_packs(device, trainer.config.packs.token_budget)
        yield from parallel_map(one, rows, concurrency=count)
