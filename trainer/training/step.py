"""One optimiser step's loss and gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainer.data.batches import Step
from trainer.data.tokenise import Tokenised
from trainer.distributed.process_group import Turn, World
from trainer.forward.logprobs import (
    Row,
    Scored,
    TokenLogprobs,
    as_forest,
    packs,
    score,
    shares_prefixes,
)
from trainer.forward.parallel import side_by_side, workers
from trainer.losses import (
    Lambdas,
    LikelihoodLoss,
    Loss,
    PairLoss,
    kl_reference_point,
    summed_rewards,
)
from trainer.models.lora import Gradients, Lora, MasterWeights
from trainer.training.activation_checkpointing import forgetful_layers
from trainer.training.reference_cache import ReferenceCache, pair_key

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class StepResult:
    """What a step measured; rewards r in nats, in the order of the step's examples. `z0` is what
    the loss compared rewards with (0 where it compares with nothing)."""

    loss: float
    z0: float
    z0_unclamped: float
    rewards: tuple[float, ...]
    tokens: int


@dataclass
class Budget:
    """Tokens of a pack, and tokens whose activations may wait until z₀ is known. Running out of
    memory lowers them for the rest of the run."""

    pack: int
    held: int

    def lower(self, longest: int) -> bool:
        """Ask for less; False when nothing is left to give up but single rows."""
        if self.held:
            self.held = 0
            return True
        if self.pack <= longest:
            return False
        self.pack //= 2
        return True


@dataclass(frozen=True)
class StepRunner:
    """Computes steps over `examples`. `check` runs between packs and may raise to interrupt."""

    model: Any
    lora: Lora
    masters: MasterWeights
    reference: ReferenceCache
    examples: Sequence[Tokenised]
    loss: Loss
    lambdas: Lambdas
    max_length: int
    budget: Budget
    world: World
    checkpointing: bool
    check: Callable[[], None]
    on_less_memory: Callable[[str], None]

    def backward(
        self, step: Step, *, beta: float, mean_reward: float = 0.0, fresh: bool = False
    ) -> StepResult:
        """Add the gradient of the step's loss to the masters: the mean over its examples (or its
        pairs) of weight × loss, whatever the packs and however many processes share them.

        `mean_reward` is the running mean that BCO compares with. `fresh` says that B is zero still:
        the policy is the reference, all rewards and z₀ are zero, no other pass is needed to know
        so, and what the examples score is kept as their reference. Memory that runs out costs a
        repetition in smaller packs, not the run.
        """
        while True:
            self.masters.clear()
            try:
                with self._saving():
                    return self._whole(step, beta, mean_reward, train=True, fresh=fresh)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.world.size > 1:
                    raise
                longest = max(self.examples[index].length for index in step.examples)
                if not self.budget.lower(longest):
                    raise
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self.on_less_memory(
                    f"out of memory: going on with packs of {self.budget.pack} tokens, "
                    f"{self.budget.held} of them held"
                )

    def measure(self, step: Step, *, beta: float, mean_reward: float = 0.0) -> StepResult:
        """The same figures without gradient and without dropout."""
        with torch.no_grad():
            return self._whole(step, beta, mean_reward, train=False, fresh=False)

    def rows(self, step: Step) -> tuple[list[Row], list[Row]]:
        """What the step scores: its examples, and each prompt with its mismatched completion, cut
        where it would pass max_length."""
        own: list[Row] = []
        mismatched: list[Row] = []
        for index in step.examples:
            own.append((self.examples[index].prompt, self.examples[index].completion))
        for index, other in zip(step.examples, step.mismatched, strict=bool(step.mismatched)):
            prompt = self.examples[index].prompt
            room = self.max_length - len(prompt)
            mismatched.append((prompt, self.examples[other].completion[:room]))
        return own, mismatched

    def _whole(
        self, step: Step, beta: float, mean_reward: float, *, train: bool, fresh: bool
    ) -> StepResult:
        own, mismatched = self.rows(step)
        groups = self._packs(own)
        sizes = [sum(len(own[i][0]) + len(own[i][1]) for i in group) for group in groups]
        turns = self.world.share(sizes)
        anchor = unclamped = self._tensor(mean_reward)
        held: list[TokenLogprobs] = []
        if self.loss.anchor == "z0" and not fresh:
            size = sum(sizes[turn.piece] for turn in turns)
            hold = self._holds(size, groups, mismatched, train=train)
            strangers, held = self._strangers(
                own, mismatched, groups, turns, train=train, hold=hold
            )
            z0, before = kl_reference_point(self.world.sum(strangers))
            anchor, unclamped = z0.float(), before.float()

        def one(number: int) -> tuple[Tensor, Tensor, Gradients, list[Tensor]]:
            """A pack's share of the loss, its rewards and gradient, and what its rows scored."""
            turn = turns[number]
            group = groups[turn.piece]
            logprobs = held[number] if held else self._score(own, group, train=train).logprobs
            if held:
                held[number] = _NOTHING  # what its graph holds goes when this pack is done
            scored = [values.detach() for values in logprobs.split()]
            known = scored if fresh else self._known([own[i] for i in group])
            reward = self._rewards(logprobs, known)
            loss = self._loss(step, group, logprobs, reward, anchor, beta)
            found: Gradients = ()
            if train:
                with self._dropping(train):  # layers that compute again must drop the same
                    found = self.masters.gradients_of(loss if turn.counts else 0 * loss)
            return loss.detach(), reward.detach(), found, scored

        total = self._tensor(0.0, torch.float64)
        rewards = torch.zeros(len(own), dtype=torch.float64, device=anchor.device)
        values: dict[bytes, Tensor] = {}
        for turn, (loss, reward, gradients, scored) in zip(
            turns, self._side_by_side(one, range(len(turns))), strict=True
        ):
            group = groups[turn.piece]
            if train:
                self.masters.add(gradients)
            if turn.counts:
                total += loss.double()
                rewards[torch.tensor(group, device=rewards.device)] = reward.double()
                values.update(zip((pair_key(own[i]) for i in group), scored, strict=True))
            self.check()
        if train:
            self.world.sum_each(self.masters.gradients())
        if fresh:
            self.reference.add_of_all(values, self.world)
        return StepResult(
            loss=self.world.sum(total).item(),
            z0=anchor.item(),
            z0_unclamped=unclamped.item(),
            rewards=tuple(self.world.sum(rewards).tolist()),
            tokens=sum(len(x) + len(y) for x, y in own + mismatched),
        )

    def _holds(
        self, size: int, groups: Sequence[Sequence[int]], mismatched: Sequence[Row], *, train: bool
    ) -> bool:
        """Whether activations wait until z₀ is known; `size` counts the tokens of this process.
        All processes do the same, for a sharded base's sake."""
        # Dropout would reach z₀ by way of the prompt; and z₀ is no place for noise.
        too_many = train and (size > self.budget.held or self.lora.dropout > 0)
        # A stranger of one token is scored without running the model: a pass too few.
        short = any(all(len(mismatched[i][1]) == 1 for i in group) for group in groups)
        return not self.world.any(too_many or (self.world.sharded and short), self._device)

    def _strangers(
        self,
        own: Sequence[Row],
        mismatched: Sequence[Row],
        groups: Sequence[Sequence[int]],
        turns: Sequence[Turn],
        *,
        train: bool,
        hold: bool,
    ) -> tuple[Tensor, list[TokenLogprobs]]:
        """Rewards of the mismatched pairs of the turns that count, (B,) with zeros elsewhere, and,
        where `hold` says so, the scored examples whose prompts they were read from."""

        def one(turn: Turn) -> tuple[TokenLogprobs, TokenLogprobs | None]:
            """The pack's mismatched pairs, and its examples where they are held."""
            group = groups[turn.piece]
            if hold:
                scored = self._score(own, group, train=train, keep=True)
                others = scored.others([mismatched[position][1] for position in group])
                return others, scored.logprobs
            with torch.no_grad():
                return self._score(mismatched, group, train=False).logprobs, None

        rewards = torch.zeros(len(own), dtype=torch.float64, device=self._device)
        held: list[TokenLogprobs] = []
        for turn, (others, logprobs) in zip(turns, self._side_by_side(one, turns), strict=True):
            if logprobs is not None:
                held.append(logprobs)
            if turn.counts:
                group = groups[turn.piece]
                found = self._rewards(others, self._known([mismatched[i] for i in group]))
                rewards[torch.tensor(group, device=rewards.device)] = found.double()
            self.check()
        return rewards, held

    def _side_by_side(self, function: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
        return side_by_side(function, items, at_a_time=self._workers)

    @property
    def _workers(self) -> int:
        """Packs that run at a time. One where their order matters: to the numbers that dropout
        draws, to processes that wait for each other's layers."""
        if self.lora.dropout > 0 or self.world.size > 1:
            return 1
        return workers(self._device, self.budget.pack)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        if not self.checkpointing:
            yield
            return
        # What computes again in the backward pass must meet the attention it met before.
        packed = as_forest(self.model) if shares_prefixes(self.model) else nullcontext()
        with packed, forgetful_layers(self.model):
            yield

    def _packs(self, own: Sequence[Row]) -> list[list[int]]:
        """Positions of the step by pack; an up and its down are not parted."""
        count = self._workers
        budget = self.budget.pack // count
        if self.loss.unit == "example":
            return packs(own, budget, parts=count)
        joined: list[Row] = [
            (own[up][0], (*own[up][1], *own[up + 1][1])) for up in range(0, len(own), 2)
        ]
        groups = packs(joined, budget, parts=count)
        return [[i for pair in group for i in (2 * pair, 2 * pair + 1)] for group in groups]

    def _score(
        self, rows: Sequence[Row], group: Sequence[int], *, train: bool, keep: bool = False
    ) -> Scored:
        with self._dropping(train):
            return score(self.model, [rows[position] for position in group], keep=keep)

    @contextmanager
    def _dropping(self, train: bool) -> Iterator[None]:
        self.lora.train(train)
        try:
            yield
        finally:
            self.lora.train(False)

    def _known(self, rows: Sequence[Row]) -> list[Tensor]:
        return [self.reference[row] for row in rows]

    def _rewards(self, logprobs: TokenLogprobs, known: Sequence[Tensor]) -> Tensor:
        ratios = logprobs.values - torch.cat(list(known)).to(logprobs.values.device)
        return summed_rewards(
            ratios, logprobs.owners, examples=logprobs.rows, clamp=self.loss.clamp
        )

    def _loss(
        self,
        step: Step,
        group: Sequence[int],
        logprobs: TokenLogprobs,
        rewards: Tensor,
        anchor: Tensor,
        beta: float,
    ) -> Tensor:
        """What a pack adds to the step's loss, 0-dimensional."""
        chosen = [self.examples[step.examples[position]] for position in group]
        weights = self._tensor([example.weight for example in chosen])
        if isinstance(self.loss, PairLoss):
            losses = self.loss.function(rewards[0::2], rewards[1::2], beta)
            weights = torch.minimum(weights[0::2], weights[1::2])
            return (losses * weights).sum() / (len(step.examples) // 2)
        if isinstance(self.loss, LikelihoodLoss):
            lengths = torch.bincount(logprobs.owners, minlength=logprobs.rows)
            losses = self.loss.function(logprobs.sums(), lengths)
        else:
            labels = torch.tensor([example.label for example in chosen], device=rewards.device)
            losses = self.loss.function(rewards, labels, anchor, beta, self.lambdas)
        return (losses * weights).sum() / len(step.examples)

    def _tensor(self, value: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(value, dtype=dtype, device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.masters.tensors.values())).device


_NOTHING = TokenLogprobs(torch.empty(0), torch.empty(0, dtype=torch.long), 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)
