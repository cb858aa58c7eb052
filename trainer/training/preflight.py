"""Check before a model is loaded whether a loss can learn from a snapshot."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from trainer.config import TrainConfig
from trainer.data.examples import Example, refuse_if_faulty
from trainer.data.messages import Message
from trainer.losses import LOSSES, ExampleLoss, LikelihoodLoss, Loss

# Alternatives, the most similar to KTO first, and what each does not need. The other losses need
# more than one of these and fit no snapshot that none of these fits.
_INSTEAD = {
    "kto": "needs no pairs",
    "apo_zero_unpaired": "needs no pairs, matched or mismatched",
    "sft": "learns from desirable examples alone",
}


def check_trainable(loss: Loss, examples: Sequence[Example], config: TrainConfig) -> None:
    """Raise Refused with everything that `faults_of` finds."""
    refuse_if_faulty(faults_of(loss, examples, config))


def faults_of(loss: Loss, examples: Sequence[Example], config: TrainConfig) -> list[str]:
    """Return why the loss cannot learn from the examples with this config; empty when it can.

    Each fault includes what to change, and names another loss that fits the same examples and batch
    size, where there is one.
    """
    snapshot = _Snapshot.of(examples)
    instead = [
        f", or use {name}, which {freedom}"
        for name, freedom in _INSTEAD.items()
        if not _faults(LOSSES[name], snapshot, config.batch_size)
    ]
    faults = _faults(loss, snapshot, config.batch_size)
    return [fault + "".join(instead[:1]) for fault in faults]


@dataclass(frozen=True)
class _Snapshot:
    """Counts of a snapshot; `paired` is the number of prompts with both ups and downs."""

    ups: int
    downs: int
    prompts: int
    paired: int

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Self:
        labels: defaultdict[tuple[Message, ...], set[bool]] = defaultdict(set)
        for example in examples:
            labels[example.prompt].add(example.label)
        ups = sum(example.label for example in examples)
        return cls(
            ups=ups,
            downs=len(examples) - ups,
            prompts=len(labels),
            paired=sum(len(found) == 2 for found in labels.values()),
        )

    @property
    def examples(self) -> int:
        return self.ups + self.downs


def _faults(loss: Loss, snapshot: _Snapshot, batch_size: int) -> list[str]:
    if isinstance(loss, LikelihoodLoss):
        return _no_ups(loss.name, snapshot)
    if not isinstance(loss, ExampleLoss):
        return _no_pair(loss.name, snapshot)
    mismatch = _no_mismatch(loss.name, snapshot, batch_size) if loss.anchor == "z0" else []
    return _one_class(loss.name, snapshot) + mismatch


def _no_ups(name: str, snapshot: _Snapshot) -> list[str]:
    if snapshot.ups:
        return []
    return [
        f"none of {snapshot.examples} example(s) is desirable: {name} learns from desirable "
        "examples alone, collect thumbs up"
    ]


def _no_pair(name: str, snapshot: _Snapshot) -> list[str]:
    if snapshot.paired:
        return []
    return [
        f"no prompt has both a desirable and an undesirable completion: {name} learns from such "
        "pairs, vote on several completions of one prompt"
    ]


def _one_class(name: str, snapshot: _Snapshot) -> list[str]:
    if snapshot.ups and snapshot.downs:
        return []
    if snapshot.examples < 2:
        return [
            f"{snapshot.examples} example(s) cannot be trained on: at least 2 are needed by "
            f"{name}, one of each kind"
        ]
    kind = "desirable" if snapshot.ups else "undesirable"
    return [
        f"all {snapshot.examples} examples are {kind}: {name} needs both kinds, collect votes of "
        "the other one"
    ]


def _no_mismatch(name: str, snapshot: _Snapshot, batch_size: int) -> list[str]:
    found = []
    if snapshot.examples > 1 and snapshot.prompts < 2:
        found.append(
            f"all {snapshot.examples} examples have the same prompt: z₀ of {name} needs "
            "completions of at least two, vote on other prompts"
        )
    if batch_size < 2:
        found.append(
            f"batch_size is {batch_size}: z₀ of {name} is the mean over a step's mismatched "
            "pairs, choose 2 or more"
        )
    return found
