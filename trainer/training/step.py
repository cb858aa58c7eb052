"""One optimiser step's loss and gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from trainer.backends import backend_for
from trainer.data.batches import Step
from trainer.data.tokenise import Tokenised
from trainer.distributed.process_group import ProcessGroup, WorkItem
from trainer.errors import ProcessLost
from trainer.forward.logprobs import (
    Row,
    Scored,
    TokenLogprobs,
    as_forest,
    packs,
    score,
    shares_prefixes,
)
from trainer.forward.parallel import concurrent_packs, parallel_map
from trainer.losses import (
    Lambdas,
    LikelihoodLoss,
    Loss,
    PairLoss,
    kl_reference_point,
    sft,
    summed_rewards,
)
from trainer.models.lora import Gradients, Lora, MasterWeights
from trainer.training.activation_checkpointing import checkpointed_layers
from trainer.training.loss_scale import LossScale
from trainer.training.memory_budget import (
    Budget,
    Failures,
    KernelMissing,
    is_out_of_memory,
    raise_failures,
    release_memory,
)
from trainer.training.reference_cache import ReferenceCache, pair_key
from trainer.transfers import on_device, to_device

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class StepResult:
    """Measurements of a step; rewards r in nats, in the order of the step's examples. `z0` is the
    anchor that the loss compared rewards with (0 for a loss without one)."""

    loss: float
    z0: float
    z0_unclamped: float
    rewards: tuple[float, ...]
    tokens: int


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
    process_group: ProcessGroup
    checkpointing: bool
    loss_scale: LossScale
    check: Callable[[], None]
    on_less_memory: Callable[[str], None]
    #: of the SFT loss of desirable examples, in addition to a preference loss
    sft_weight: float = 0.0

    def backward(
        self, step: Step, *, beta: float, mean_reward: float = 0.0, fresh: bool = False
    ) -> StepResult:
        """Add the gradient of the step's loss, times the loss scale, to the masters: the mean over
        its examples (or its pairs) of weight × loss, independent of the packs and of the number of
        processes.

        `mean_reward` is the running mean that BCO compares with. `fresh`: nothing is trained yet,
        so the policy is the reference, all rewards and z₀ are zero without another pass, and the
        scores of the examples are stored as their reference. When memory runs out, in whichever
        process, the step is repeated in smaller packs. Raises ProcessLost where the base is
        sharded: then all processes must start again, with the lower budget that `on_less_memory`
        announces.
        """
        while True:
            self.masters.clear()
            result = self._attempt(step, beta, mean_reward, fresh=fresh)
            if isinstance(result, StepResult):
                return result
            release_memory()
            if result == "out of memory":
                self.budget.lower(self._longest(step))
                self.on_less_memory(self._less_memory())

    def _attempt(
        self, step: Step, beta: float, mean_reward: float, *, fresh: bool
    ) -> StepResult | Literal["out of memory", "no kernel"]:
        """Return the step's result, or why another attempt may succeed: memory ran out and smaller
        packs may fit, or the backend now does without a kernel that the device lacks."""
        try:
            with self._saving():
                return self._whole(step, beta, mean_reward, train=True, fresh=fresh)
        except KernelMissing as error:
            backend_for(self._device).give_up_kernels(error)
            return "no kernel"
        except RuntimeError as error:
            longest = self._longest(step)
            if not is_out_of_memory(error) or not self.budget.can_lower(longest):
                raise
            if self.process_group.sharded:
                # The others wait for this process inside of a layer, and cannot be told.
                self.budget.lower(longest)
                self.on_less_memory(self._less_memory())
                raise ProcessLost(
                    "out of memory in one of several processes that share the base: start all of "
                    "them again to go on from the last checkpoint in smaller packs"
                ) from error
        return "out of memory"

    def _longest(self, step: Step) -> int:
        return max(self.examples[index].length for index in step.examples)

    def _less_memory(self) -> str:
        return (
            f"out of memory: going on with packs of {self.budget.pack} tokens, "
            f"{self.budget.held} of them held"
        )

    def measure(self, step: Step, *, beta: float, mean_reward: float = 0.0) -> StepResult:
        """Return the same figures without gradient and without dropout."""
        with torch.no_grad():
            return self._whole(step, beta, mean_reward, train=False, fresh=False)

    def rows(self, step: Step) -> tuple[list[Row], list[Row]]:
        """Return the rows that the step scores: its examples, and each prompt with its mismatched
        completion, truncated at max_length."""
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
        items = self.process_group.share(sizes)
        anchor = unclamped = self._number(mean_reward)
        held: list[TokenLogprobs] = []
        failures = Failures(self.process_group, backend_for(self._device))
        if self.loss.anchor == "z0" and not fresh:
            size = sum(sizes[item.piece] for item in items)
            hold = self._holds(size, groups, mismatched, train=train)
            mismatched_rewards = self._zeros(len(own))
            with failures.noted():
                mismatched_rewards, held = self._mismatched_rewards(
                    own, mismatched, groups, items, train=train, hold=hold
                )
            z0, before = kl_reference_point(self.process_group.sum(mismatched_rewards))
            anchor, unclamped = z0.float(), before.float()

        def one(number: int) -> tuple[Tensor, Tensor, Gradients, list[Tensor]]:
            """Return a pack's share of the loss, its rewards, gradient and log-probabilities."""
            item = items[number]
            group = groups[item.piece]
            logprobs = held[number] if held else self._score(own, group, train=train).logprobs
            if held:
                held[number] = _RELEASED  # its graph is freed when this pack is done
            scored = [values.detach() for values in logprobs.split()]
            known = scored if fresh else self._known([own[i] for i in group])
            reward = self._rewards(logprobs, known)
            loss = self._loss(step, group, logprobs, reward, anchor, beta)
            found: Gradients = ()
            if train:
                with self._dropping(train):  # checkpointed layers must repeat the same dropout
                    counted = loss if item.counts else 0 * loss
                    found = self.masters.gradients_of(self.loss_scale.scaled(counted))
            return loss.detach(), reward.detach(), found, scored

        total = self._number(0.0, torch.float64)
        rewards = self._zeros(len(own))
        values: dict[bytes, Tensor] = {}
        work = [] if failures else items
        with failures.noted():
            for item, (loss, reward, gradients, scored) in zip(
                work, self._parallel_map(one, range(len(work))), strict=True
            ):
                group = groups[item.piece]
                if train:
                    self.masters.add(gradients)
                if item.counts:
                    total += loss.double()
                    rewards[on_device(group, self._device)] = reward.double()
                    values.update(zip((pair_key(own[i]) for i in group), scored, strict=True))
                self.check()
        held.clear()  # of a step that ran out of memory
        if train:
            self.process_group.sum_each(self.masters.gradients())
        # one collective, and one wait for the device
        flags = on_device(failures.flags(), self._device, torch.float64)
        sums = self.process_group.sum(torch.cat([flags, total[None], rewards]))
        anchors = torch.stack([anchor, unclamped]).double()
        z0_found, z0_before, *summed = torch.cat([anchors, sums]).tolist()
        raise_failures(summed[: len(flags)])
        loss_sum, *all_rewards = summed[len(flags) :]
        if fresh:
            self.reference.add_of_all(values, self.process_group)
        return StepResult(
            loss=loss_sum,
            z0=z0_found,
            z0_unclamped=z0_before,
            rewards=tuple(all_rewards),
            tokens=sum(len(x) + len(y) for x, y in own + mismatched),
        )

    def _holds(
        self, size: int, groups: Sequence[Sequence[int]], mismatched: Sequence[Row], *, train: bool
    ) -> bool:
        """Return whether activations are kept until z₀ is known; `size` counts the tokens of this
        process. All processes decide alike, as a sharded base requires."""
        # Keys and values with dropout would add noise to z₀.
        too_many = train and (size > self.budget.held or self.lora.dropout > 0)
        # A mismatched completion of one token is scored without a forward pass, which other
        # processes would wait for.
        short = any(all(len(mismatched[i][1]) == 1 for i in group) for group in groups)
        return not self.process_group.any(
            too_many or (self.process_group.sharded and short), self._device
        )

    def _mismatched_rewards(
        self,
        own: Sequence[Row],
        mismatched: Sequence[Row],
        groups: Sequence[Sequence[int]],
        items: Sequence[WorkItem],
        *,
        train: bool,
        hold: bool,
    ) -> tuple[Tensor, list[TokenLogprobs]]:
        """Rewards of the mismatched pairs of the items that count, (B,) with zeros elsewhere, and,
        where `hold` says so, the scored examples whose prompts they were read from."""

        def one(item: WorkItem) -> tuple[TokenLogprobs, TokenLogprobs | None]:
            """Return the pack's mismatched pairs, and its examples where they are held."""
            group = groups[item.piece]
            if hold:
                scored = self._score(own, group, train=train, keep=True)
                others = scored.others([mismatched[position][1] for position in group])
                return others, scored.logprobs
            with torch.no_grad():
                return self._score(mismatched, group, train=False).logprobs, None

        rewards = self._zeros(len(own))
        held: list[TokenLogprobs] = []
        for item, (others, logprobs) in zip(items, self._parallel_map(one, items), strict=True):
            if logprobs is not None:
                held.append(logprobs)
            if item.counts:
                group = groups[item.piece]
                found = self._rewards(others, self._known([mismatched[i] for i in group]))
                rewards[on_device(group, self._device)] = found.double()
            self.check()
        return rewards, held

    def _parallel_map(self, function: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
        return parallel_map(function, items, concurrency=self._concurrency)

    @property
    def _concurrency(self) -> int:
        """Return how many packs run at a time: one where their order matters, to the random numbers
        of dropout or to processes that wait for each other's layers."""
        if self.lora.dropout > 0 or self.process_group.size > 1:
            return 1
        return concurrent_packs(self._device, self.budget.pack)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        if not self.checkpointing:
            yield
            return
        # The recomputation in the backward pass must use the same attention.
        packed = as_forest(self.model) if shares_prefixes(self.model) else nullcontext()
        with packed, checkpointed_layers(self.model):
            yield

    def _packs(self, own: Sequence[Row]) -> list[list[int]]:
        """Return positions of the step by pack; an up and its down stay in one pack."""
        count = self._concurrency
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
        # scores of the step itself are on the device already
        together = torch.cat(list(known))
        device = logprobs.values.device
        ratios = logprobs.values - (
            together if together.device == device else to_device(together, device)
        )
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
        """Return a pack's part of the step's loss, 0-dimensional."""
        chosen = [self.examples[step.examples[position]] for position in group]
        weights = on_device([example.weight for example in chosen], self._device, torch.float32)
        if isinstance(self.loss, PairLoss):
            losses = self.loss.function(rewards[0::2], rewards[1::2], beta)
            if self.sft_weight:
                losses = losses + self.sft_weight * self._sft(logprobs)[0::2]
            weights = torch.minimum(weights[0::2], weights[1::2])
            return (losses * weights).sum() / (len(step.examples) // 2)
        if isinstance(self.loss, LikelihoodLoss):
            lengths = on_device(logprobs.lengths, self._device)
            losses = self.loss.function(logprobs.sums(), lengths)
        else:
            labels = on_device([example.label for example in chosen], self._device)
            losses = self.loss.function(rewards, labels, anchor, beta, self.lambdas)
            if self.sft_weight:
                losses = losses + self.sft_weight * self._sft(logprobs) * labels
        return (losses * weights).sum() / len(step.examples)

    def _sft(self, logprobs: TokenLogprobs) -> Tensor:
        """Return each row's negative log-probability a token, (B,): what keeps the answers that
        people liked likely, where a preference loss only widens a distance. Pang et al. 2024
        (arXiv 2404.19733), Eq. 1."""
        return sft(logprobs.sums(), on_device(logprobs.lengths, self._device))

    def _number(self, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a number on the device, (). It is written there: nothing is copied."""
        return torch.full((), value, dtype=dtype, device=self._device)

    def _zeros(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64, device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.masters.tensors.values())).device


_RELEASED = TokenLogprobs(torch.empty(0), torch.empty(0, dtype=torch.long), ())
