"""A loss and a snapshot that do not match are refused with the reason and the alternatives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import example
from trainer.config import TrainConfig
from trainer.data.examples import Example
from trainer.errors import Refused
from trainer.losses import LOSSES, loss_named
from trainer.training.preflight import check_trainable, faults_of

pytestmark = pytest.mark.slow

# In conftest's examples three share a prompt: 0 to 2, 3 to 5 …; even numbers are desirable.
UP, DOWN, OTHER_UP, OTHER_DOWN = example(0), example(1), example(4), example(5)
ALONE = [example(6 * number, label=number % 2 == 0) for number in range(4)]  # one per prompt
Z0 = ("kto", "kto_clamped")
BOTH_CLASSES = (*Z0, "apo_zero_unpaired", "bco")


def config(batch_size: int = 16) -> TrainConfig:
    return TrainConfig(base_model="some/model", adapter_name="starter@1", batch_size=batch_size)


def faults(name: str, *examples: Example, batch_size: int = 16) -> list[str]:
    return faults_of(loss_named(name), examples, config(batch_size))


@pytest.mark.parametrize("name", LOSSES)
def test_two_prompts_with_both_classes_suit_every_loss(name: str) -> None:
    assert faults(name, UP, DOWN, OTHER_UP, OTHER_DOWN) == []
    assert check_trainable(loss_named(name), [UP, DOWN, OTHER_UP], config()) is None


@pytest.mark.parametrize("name", BOTH_CLASSES)
def test_one_class_is_refused_and_ups_alone_suit_sft(name: str) -> None:
    assert faults(name, UP, OTHER_UP) == [
        f"all 2 examples are desirable: {name} needs both kinds, collect votes of the other one, "
        "or use sft, which learns from desirable examples alone"
    ]
    # no loss learns from downs alone, so no alternative is named
    assert faults(name, DOWN, OTHER_DOWN) == [
        f"all 2 examples are undesirable: {name} needs both kinds, collect votes of the other one"
    ]


@pytest.mark.parametrize("name", BOTH_CLASSES)
def test_one_example_or_none_is_refused(name: str) -> None:
    (fault,) = faults(name, UP)
    assert fault.startswith("1 example(s) cannot be trained on: at least 2 are needed")
    assert fault.endswith("or use sft, which learns from desirable examples alone")
    assert faults(name) == [
        f"0 example(s) cannot be trained on: at least 2 are needed by {name}, one of each kind"
    ]


@pytest.mark.parametrize("name", Z0)
def test_one_prompt_has_no_mismatched_pair(name: str) -> None:
    assert faults(name, UP, DOWN) == [
        f"all 2 examples have the same prompt: z₀ of {name} needs completions of at least two, "
        "vote on other prompts, or use apo_zero_unpaired, which needs no pairs, matched or "
        "mismatched"
    ]
    for other in ("apo_zero_unpaired", "bco", "sft", "dpo"):
        assert faults(other, UP, DOWN) == []


@pytest.mark.parametrize("name", Z0)
def test_batch_of_one_has_no_mismatched_pair(name: str) -> None:
    assert faults(name, *ALONE, batch_size=1) == [
        f"batch_size is 1: z₀ of {name} is the mean over a step's mismatched pairs, choose 2 or "
        "more, or use apo_zero_unpaired, which needs no pairs, matched or mismatched"
    ]
    assert faults(name, *ALONE, batch_size=2) == []
    for other in ("apo_zero_unpaired", "bco", "sft"):
        assert faults(other, *ALONE, batch_size=1) == []


def test_dpo_without_a_prompt_of_both_kinds_is_refused() -> None:
    # both classes are there, but never for the same prompt
    assert faults("dpo", *ALONE) == [
        "no prompt has both a desirable and an undesirable completion: dpo learns from such "
        "pairs, vote on several completions of one prompt, or use kto, which needs no pairs"
    ]
    assert faults("dpo", *ALONE, UP, DOWN) == []
    assert "or use sft" in faults("dpo", UP, OTHER_UP)[0]


def test_sft_without_ups_is_refused() -> None:
    assert faults("sft", DOWN, OTHER_DOWN) == [
        "none of 2 example(s) is desirable: sft learns from desirable examples alone, collect "
        "thumbs up"
    ]
    assert faults("sft", UP) == []


def test_all_preflight_errors_are_reported_together() -> None:
    with pytest.raises(Refused) as caught:
        check_trainable(loss_named("kto"), [UP, example(2)], config(batch_size=1))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "all 2 examples are desirable",
        "all 2 examples have the same prompt",
        "batch_size is 1",
    ]


@given(
    numbers=st.lists(st.integers(0, 12), unique=True, max_size=8),
    labels=st.lists(st.booleans(), min_size=8, max_size=8),
    batch_size=st.integers(1, 3),
)
def test_named_alternatives_pass(numbers: list[int], labels: list[bool], batch_size: int) -> None:
    examples = [
        example(number, label=label) for number, label in zip(numbers, labels, strict=False)
    ]
    for name in LOSSES:
        found = faults(name, *examples, batch_size=batch_size)
        fitting = [other for other in LOSSES if not faults(other, *examples, batch_size=batch_size)]
        assert (name in fitting) == (not found)
        for fault in found:
            _, named, after = fault.partition(", or use ")
            assert bool(named) == bool(fitting)
            assert not named or after.split(",")[0] in fitting
