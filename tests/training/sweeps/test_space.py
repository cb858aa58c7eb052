"""The values that a sweep tries, and the trials that follow."""

import math

import pytest

from feedback_app.training.runs.config import RunConfig
from feedback_app.training.sweeps.space import (
    MOST_TRIALS,
    Range,
    space_json,
    trials_of,
    values_read,
    values_shown,
)
from feedback_app.web.errors import UserError

BASE = RunConfig()


def test_values_are_a_list_or_a_range() -> None:
    assert values_read("learning_rate", "1e-5, 2e-4,1e-5") == (1e-5, 2e-4)
    assert values_read("learning_rate", " 1e-5 to 1e-3 ") == Range(1e-5, 1e-3)
    assert values_read("lora_r", "8, 16") == (8, 16)
    assert values_read("loss", "KTO, bco") == ("kto", "bco")
    assert values_read("lr_schedule", "linear, Cosine to zero") == ("linear", "cosine")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("learning_rate", "1, x", "Learning rate: 1 is not within 1e-07 to 0.01; x is no number."),
        ("learning_rate", "nan", "Learning rate: nan is not within 1e-07 to 0.01."),
        ("learning_rate", "1e-3 to 1e-5", "Learning rate: a range begins with the lower value."),
        ("epochs", "1.5", "Epochs: 1.5 is no whole number."),
        ("epochs", "1e999", "Epochs: 1e999 is not within 1 to 20."),
        ("epochs", " , ", "Epochs: list values, such as 1, 20."),
        # other examples, or other rewards, than KTO's
        ("loss", "kto, sft", "Loss: sft cannot be compared: kto, apo_zero_unpaired, bco."),
        ("loss", "kto to bco", "Loss: kto to bco cannot be compared: "),
        ("max_length", "64", "max_length is no setting that a sweep varies: "),
    ],
)
def test_values_that_cannot_be_tried_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        values_read(name, text)
    assert str(refused.value).startswith(message)


def test_grid_has_a_trial_for_each_combination() -> None:
    space = {"learning_rate": (1e-5, 1e-4), "epochs": (1, 2, 3)}
    trials = trials_of(BASE, space, method="grid", trials=0, seed=0)
    assert [(t.learning_rate, t.epochs) for t in trials] == [
        (1e-5, 1),
        (1e-5, 2),
        (1e-5, 3),
        (1e-4, 1),
        (1e-4, 2),
        (1e-4, 3),
    ]
    assert {t.beta for t in trials} == {BASE.beta}


def test_random_search_repeats_with_its_seed_and_draws_rates_by_their_logarithm() -> None:
    space = {"learning_rate": Range(1e-6, 1e-2), "epochs": Range(1, 3)}
    trials = trials_of(BASE, space, method="random", trials=32, seed=4)
    assert trials == trials_of(BASE, space, method="random", trials=32, seed=4)
    assert trials != trials_of(BASE, space, method="random", trials=32, seed=5)
    assert len({(t.learning_rate, t.epochs) for t in trials}) == 32
    logs = [math.log10(t.learning_rate) for t in trials]
    assert all(-6 <= log <= -2 for log in logs)
    # a uniform draw would have four fifths of them above 2e-3
    assert 8 <= sum(log < -4 for log in logs) <= 24
    assert {t.epochs for t in trials} == {1, 2, 3}


def test_random_search_of_few_values_tries_each_once() -> None:
    trials = trials_of(BASE, {"epochs": (1, 2, 3)}, method="random", trials=20, seed=0)
    assert sorted(t.epochs for t in trials) == [1, 2, 3]


@pytest.mark.parametrize(
    ("space", "method", "trials", "message"),
    [
        ({}, "grid", 0, "A sweep varies one to 4 settings."),
        ({"epochs": (1,)}, "grid", 0, "A sweep has at least two trials"),
        ({"epochs": Range(1, 3)}, "grid", 0, "Epochs: a grid tries listed values."),
        ({"epochs": Range(1, 3)}, "random", 33, f"Trials: choose 2 to {MOST_TRIALS}."),
        (
            {"epochs": tuple(range(1, 12)), "lora_r": (8, 16, 32)},
            "grid",
            0,
            "This grid has 33 trials, and a sweep has at most 32",
        ),
    ],
)
def test_spaces_that_cannot_be_searched_are_refused(
    space: dict[str, tuple[int, ...] | Range], method: str, trials: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trials_of(BASE, space, method=method, trials=trials, seed=0)


def test_settings_that_exclude_each_other_name_the_trial() -> None:
    with pytest.raises(UserError, match=r"The trial with LoRA rank 200: .*twice the rank"):
        trials_of(
            RunConfig(lora_init="pissa"), {"lora_r": (8, 200)}, method="grid", trials=0, seed=0
        )
    with pytest.raises(UserError, match="LoRA rank: a run that starts from the live version"):
        trials_of(
            RunConfig(start_from="live"), {"lora_r": (8, 16)}, method="grid", trials=0, seed=0
        )


def test_stored_values_are_written_as_in_the_form() -> None:
    space = {"learning_rate": Range(1e-5, 1e-3), "loss": ("kto", "bco"), "beta": (0.1, 0.5)}
    stored = space_json(space)
    shown = {name: values_shown(values) for name, values in stored.items()}
    assert shown == {"learning_rate": "1e-05 to 0.001", "loss": "kto, bco", "beta": "0.1, 0.5"}
    assert {name: values_read(name, text) for name, text in shown.items()} == space
