"""The predicted up-rate on votes whose cause is known: answers made of one kind of token or of
another, liked at known rates."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.trainer.conftest import example
from tests.trainer.evaluation.test_evaluate import make_eval, report_of
from trainer.data.examples import write_examples
from trainer.errors import Refused
from trainer.evaluation import up_rate
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.up_rate import Answered, UpRateModel, fit_up_rate
from trainer.models.loading import LoadedBase

pytestmark = pytest.mark.slow

#: Tokens of two kinds of answers.
KINDS = {"good": range(60, 65), "bad": range(200, 205)}


def answer(kind: str, prompt: int, rng: random.Random) -> Answered:
    """Return an answer of one kind to a numbered prompt."""
    question = (1, 40 + prompt % 20, 300 + prompt % 50, 41)
    ids = tuple(rng.choices(KINDS[kind], k=rng.randint(6, 14)))
    return Answered((question, ids), text=f"an answer of {len(ids)} tokens", finished=True)


@dataclass(frozen=True)
class Voted:
    """Answers, their votes and their prompts; `kinds` says what each answer is made of."""

    answers: list[Answered]
    labels: list[bool]
    groups: list[str]
    kinds: list[str]


def voted(count: int, rates: dict[str, float], *, seed: int, per_prompt: int = 2) -> Voted:
    """Return `count` votes, answers of each kind in turn; a kind is liked at its rate."""
    rng = random.Random(seed)
    kinds = [("good", "bad")[number % 2] for number in range(count)]
    prompts = [number // per_prompt for number in range(count)]
    return Voted(
        [answer(kind, prompt, rng) for kind, prompt in zip(kinds, prompts, strict=True)],
        [rng.random() < rates[kind] for kind in kinds],
        [f"p{prompt}" for prompt in prompts],
        kinds,
    )


def fit(
    base: LoadedBase, votes: Voted, *, seed: int = 0, weights: Sequence[float] | None = None
) -> UpRateModel:
    given = [1.0] * len(votes.labels) if weights is None else weights
    model = fit_up_rate(base, votes.answers, votes.labels, given, votes.groups, seed=seed)
    assert model is not None
    return model


def rates_of(model: UpRateModel, base: LoadedBase, kind: str, *, count: int = 60) -> list[float]:
    """Return the predictions for new answers of one kind to new prompts."""
    rng = random.Random(99)
    new = [answer(kind, 1000 + number, rng) for number in range(count)]
    return model.predict(
        base, [one.row for one in new], [one.text for one in new], [one.finished for one in new]
    )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("count", [60, 260])  # calibrated by a sigmoid, and by steps
def test_votes_with_a_clear_cause_are_predicted(tiny: LoadedBase, count: int) -> None:
    model = fit(tiny, voted(count, {"good": 1.0, "bad": 0.0}, seed=1))
    assert model.auc > 0.95
    assert model.brier < 0.05
    assert model.brier_of_mean == pytest.approx(0.25)
    assert (model.ups, model.downs) == (count // 2, count // 2)
    good, bad = rates_of(model, tiny, "good"), rates_of(model, tiny, "bad")
    assert min(good) > max(bad)
    assert all(0 < rate < 1 for rate in good + bad)


@pytest.mark.long
def test_random_votes_are_not_predicted(tiny: LoadedBase) -> None:
    aucs, gains = [], []
    for seed in range(8):
        model = fit(tiny, voted(120, {"good": 0.5, "bad": 0.5}, seed=seed))
        aucs.append(model.auc)
        gains.append(model.brier_of_mean - model.brier)
    # One AUC of 60 ups and 60 downs has a standard error of sqrt(121 / (12 * 60 * 60)) = 0.053,
    # somewhat less where no score is found that predicts anything.
    error = 0.053 / len(aucs) ** 0.5
    assert abs(mean(aucs) - 0.5) < 2 * error
    assert mean(gains) < 0.01


# calibrated by a sigmoid, and by steps
@pytest.mark.parametrize("count", [160, pytest.param(600, marks=pytest.mark.long)])
def test_predictions_mean_what_they_say(tiny: LoadedBase, count: int) -> None:
    votes = voted(count, {"good": 0.8, "bad": 0.3}, seed=3)
    model = fit(tiny, votes)
    # three standard errors of a rate over half of the votes: 0.14 and 0.07
    tolerance = 3 * (0.8 * 0.2 / (count / 2)) ** 0.5
    assert mean(rates_of(model, tiny, "good")) == pytest.approx(0.8, abs=tolerance)
    assert mean(rates_of(model, tiny, "bad")) == pytest.approx(0.3, abs=tolerance)
    predicted = model.predict(
        tiny,
        [one.row for one in votes.answers],
        [one.text for one in votes.answers],
        [one.finished for one in votes.answers],
    )
    assert mean(predicted) == pytest.approx(mean(votes.labels), abs=0.04)
    assert model.brier < model.brier_of_mean
    # nobody can do better than to know the two rates
    assert model.brier > (0.8 * 0.2 + 0.3 * 0.7) / 2 - 0.04


def test_answers_to_one_prompt_do_not_predict_each_other(tiny: LoadedBase) -> None:
    """Each prompt is liked or not by chance, and its answers resemble each other: whoever has seen
    one of them knows the vote on the others, but nothing about other prompts."""
    rng = random.Random(5)
    answers, labels, groups = [], [], []
    for prompt in range(24):
        token, liked = 60 + 5 * prompt, rng.random() < 0.5
        for _ in range(8):
            row = ((1, 41), (token,) * rng.randint(4, 8))
            answers.append(Answered(row, "text", finished=True))
            labels.append(liked)
            groups.append(f"p{prompt}")
    votes = Voted(answers, labels, groups, [])
    apart = fit(tiny, votes)
    mixed = fit(tiny, replace(votes, groups=[f"v{number}" for number in range(len(labels))]))
    assert mixed.auc > 0.9  # the trap works
    assert 0.25 < apart.auc < 0.75


@pytest.mark.long
def test_same_seed_gives_the_same_model(tiny: LoadedBase) -> None:
    votes = voted(80, {"good": 0.8, "bad": 0.3}, seed=4)
    first, second = fit(tiny, votes, seed=7), fit(tiny, votes, seed=7)
    assert (first.auc, first.brier) == (second.auc, second.brier)
    assert rates_of(first, tiny, "good") == rates_of(second, tiny, "good")
    assert fit(tiny, votes, seed=8).brier != first.brier  # other folds


def test_votes_count_by_their_weight(tiny: LoadedBase) -> None:
    votes = voted(120, {"good": 0.5, "bad": 0.5}, seed=6)
    plain = fit(tiny, votes)
    scaled = fit(tiny, votes, weights=[10.0] * 120)
    assert scaled.auc == pytest.approx(plain.auc)
    assert mean(rates_of(scaled, tiny, "good")) == pytest.approx(
        mean(rates_of(plain, tiny, "good")), abs=1e-3
    )
    trusted = fit(tiny, votes, weights=[9.0 if label else 1.0 for label in votes.labels])
    expected = 9 * sum(votes.labels) / (9 * sum(votes.labels) + votes.labels.count(False))
    found = mean(rates_of(trusted, tiny, "good") + rates_of(trusted, tiny, "bad"))
    assert found == pytest.approx(expected, abs=0.08)
    assert trusted.brier_of_mean == pytest.approx(expected * (1 - expected))


def test_unfinished_answers_can_be_what_people_dislike(tiny: LoadedBase) -> None:
    votes = voted(120, {"good": 0.5, "bad": 0.5}, seed=8)
    answers = [
        replace(one, finished=label) for one, label in zip(votes.answers, votes.labels, strict=True)
    ]
    assert fit(tiny, replace(votes, answers=answers)).auc > 0.95


def test_answer_longer_than_any_voted_one_is_no_better_than_the_longest(tiny: LoadedBase) -> None:
    """Longer answers are liked more, up to 14 tokens; nobody has voted on 200."""
    rng = random.Random(9)
    votes = voted(160, {"good": 0.5, "bad": 0.5}, seed=9)
    labels = [rng.random() < (0.75 if len(one.row[1]) > 10 else 0.25) for one in votes.answers]
    model = fit(tiny, replace(votes, labels=labels))
    token = KINDS["good"][0]

    def rate(length: int) -> float:
        rows = [((1, 41, 300 + number), (token,) * length) for number in range(20)]
        return mean(model.predict(tiny, rows, ["an answer"] * 20, [True] * 20))

    assert rate(14) > rate(6) + 0.1
    assert rate(200) == pytest.approx(rate(14), abs=0.1)


@pytest.mark.parametrize("downs", [0, 9])
def test_too_few_votes_of_a_class_give_no_model(tiny: LoadedBase, downs: int) -> None:
    votes = voted(60, {"good": 1.0, "bad": 1.0}, seed=1)
    labels = [number >= downs for number in range(60)]
    weights = [1.0] * 60
    assert fit_up_rate(tiny, votes.answers, labels, weights, votes.groups, seed=0) is None


def test_votes_of_a_class_on_few_prompts_give_no_model(tiny: LoadedBase) -> None:
    votes = voted(60, {"good": 1.0, "bad": 0.0}, seed=1)
    groups = ["one prompt" if not label else group for label, group in zip(
        votes.labels, votes.groups, strict=True
    )]  # fmt: skip
    weights = [1.0] * 60
    assert fit_up_rate(tiny, votes.answers, votes.labels, weights, groups, seed=0) is None


def test_smallest_number_of_votes_gives_a_model(tiny: LoadedBase) -> None:
    votes = voted(60, {"good": 1.0, "bad": 1.0}, seed=1)
    labels = [number >= 10 for number in range(60)]  # ten downs, on five prompts
    model = fit(tiny, replace(votes, labels=labels))
    assert (model.ups, model.downs) == (50, 10)


def test_most_votes_are_taken_by_whole_prompts(
    tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up_rate, "MOST_VOTES", 50)
    votes = voted(120, {"good": 1.0, "bad": 0.0}, seed=1)
    model = fit(tiny, votes)
    assert (model.ups, model.downs) == (25, 25)  # each prompt has one of either
    assert model.auc > 0.95


def test_no_answers_have_no_predictions(tiny: LoadedBase) -> None:
    model = fit(tiny, voted(60, {"good": 1.0, "bad": 0.0}, seed=1))
    assert model.predict(tiny, [], [], []) == []


@pytest.mark.long
def test_trainer_does_not_load_scikit_learn() -> None:
    code = "import sys, trainer.training.train, trainer.evaluation.evaluate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trainer.evaluation.up_rate" in done.stdout
    assert not any(name.split(".")[0] == "sklearn" for name in done.stdout.split())


def test_evaluation_rates_every_answer_by_the_votes(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    write_examples(eval_dir / "votes.jsonl", [example(number) for number in range(30)])
    evaluate(eval_dir)
    report = report_of(eval_dir)
    assert report["up_model"].keys() == {"auc", "brier", "brier_of_mean", "ups", "downs"}
    assert (report["up_model"]["ups"], report["up_model"]["downs"]) == (15, 15)
    rates = [one["up"] for item in report["answers"] for one in item["answers"]["base"]]
    assert len(rates) == 6
    assert all(0 < rate < 1 for rate in rates)


@pytest.mark.parametrize("votes", [None, 6])
def test_evaluation_without_enough_votes_has_no_predictions(
    tmp_path: Path, tiny_dir: Path, votes: int | None
) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    if votes is not None:
        write_examples(eval_dir / "votes.jsonl", [example(number) for number in range(votes)])
    evaluate(eval_dir)
    report = report_of(eval_dir)
    assert report["up_model"] is None
    assert {one["up"] for item in report["answers"] for one in item["answers"]["base"]} == {None}


def test_faulty_votes_are_refused(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    (eval_dir / "votes.jsonl").write_text(json.dumps({"id": "a"}) + "\n")
    with pytest.raises(Refused, match=r"votes\.jsonl line 1"):
        evaluate(eval_dir)
