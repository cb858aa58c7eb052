"""`plan`: what a run would be, without training it."""

import pytest

from tests.trainer.conftest import MakeRun, example
from trainer.errors import Refused
from trainer.plan import plan


def test_plan_counts_what_training_would_do(make_run: MakeRun) -> None:
    found = plan(make_run())
    assert (found["examples"], found["desirable"], found["undesirable"]) == (9, 5, 4)
    assert (found["lambda_d"], found["lambda_u"]) == (1.0, 1.0)
    assert found["steps"] == 6
    assert found["estimated_seconds"] > 0


def test_plan_of_served_examples_counts_their_tokens(make_run: MakeRun) -> None:
    served = [
        example(n, prompt_token_ids=(5,) * 10, completion_token_ids=(6,) * n) for n in range(1, 7)
    ]
    assert plan(make_run(examples=served))["tokens"] == 6 * 10 + sum(range(1, 7))


def test_plan_refuses_what_training_would_refuse(make_run: MakeRun) -> None:
    with pytest.raises(Refused, match="at least 2 are needed"):
        plan(make_run(examples=[example(0)]))


def test_longer_training_is_estimated_longer(make_run: MakeRun) -> None:
    short, long = plan(make_run("a", epochs=1)), plan(make_run("b", epochs=100))
    assert long["steps"] == 100 * short["steps"]
    assert long["estimated_seconds"] >= short["estimated_seconds"]
