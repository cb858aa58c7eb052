"""The KTO loss and its class weights against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import Refused
from trainer.losses import Lambdas, kl_reference_point, kto, lambdas, loss_named

EVEN = Lambdas(1.0, 1.0)


def one_loss(reward: float, *, label: bool, z0: float, beta: float, weights: Lambdas) -> float:
    return kto(
        torch.tensor([reward], dtype=torch.float64),
        torch.tensor([label]),
        torch.tensor(z0, dtype=torch.float64),
        beta,
        weights,
    ).item()


def test_kto_desirable_by_hand() -> None:
    # β(r − z₀) = 0.5·(3 − 1) = 1; 1 − σ(1) = 0.268941421369995
    loss = one_loss(3.0, label=True, z0=1.0, beta=0.5, weights=EVEN)
    assert loss == pytest.approx(0.268941421369995, abs=1e-12)


def test_kto_undesirable_by_hand() -> None:
    # β(z₀ − r) = 0.5·(1 − 3) = −1; 1 − σ(−1) = 0.731058578630005, times λ_U = 2
    loss = one_loss(3.0, label=False, z0=1.0, beta=0.5, weights=Lambdas(1.0, 2.0))
    assert loss == pytest.approx(2 * 0.731058578630005, abs=1e-12)


def test_kto_weighs_each_class_with_its_own_lambda() -> None:
    # at r = z₀ every σ is ½, so each loss is λ/2
    found = kto(
        torch.zeros(2), torch.tensor([True, False]), torch.tensor(0.0), 0.3, Lambdas(3.0, 5.0)
    )
    assert found.tolist() == [1.5, 2.5]


def test_kto_gradient_by_hand() -> None:
    # dL/dr = −λ·β·σ(a)(1 − σ(a)) with a = β(r − z₀) = 0.2·(1 − 0.5) = 0.1, λ = 4/3
    reward = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    z0 = torch.tensor(0.5, dtype=torch.float64)
    kto(reward, torch.tensor([True]), z0, 0.2, Lambdas(4 / 3, 1.0)).sum().backward()
    sigma = 1 / (1 + math.exp(-0.1))
    assert reward.grad is not None
    assert reward.grad.item() == pytest.approx(-4 / 3 * 0.2 * sigma * (1 - sigma), abs=1e-12)


def test_kto_far_from_the_reference_keeps_its_digits() -> None:
    # 1 − σ(40) is 4.2e-18: computed as a difference it would be exactly zero
    loss = one_loss(40.0, label=True, z0=0.0, beta=1.0, weights=EVEN)
    assert loss == pytest.approx(math.exp(-40), rel=1e-6)


@given(
    reward=st.floats(-50, 50),
    z0=st.floats(0, 50),
    beta=st.floats(0.01, 2),
)
def test_kto_lies_between_zero_and_lambda_and_moves_the_right_way(
    reward: float, z0: float, beta: float
) -> None:
    weights = Lambdas(1.5, 2.5)
    up = one_loss(reward, label=True, z0=z0, beta=beta, weights=weights)
    down = one_loss(reward, label=False, z0=z0, beta=beta, weights=weights)
    assert 0 <= up <= 1.5
    assert 0 <= down <= 2.5
    assert up / 1.5 + down / 2.5 == pytest.approx(1.0)
    assert one_loss(reward + 1, label=True, z0=z0, beta=beta, weights=weights) <= up
    assert one_loss(reward + 1, label=False, z0=z0, beta=beta, weights=weights) >= down


def test_reference_point_is_the_mean_clamped_at_zero_without_gradient() -> None:
    rewards = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    z0, unclamped = kl_reference_point(rewards)
    assert (z0.item(), unclamped.item()) == (3.0, 3.0)
    assert not z0.requires_grad

    z0, unclamped = kl_reference_point(-rewards)
    assert (z0.item(), unclamped.item()) == (0.0, -3.0)


def test_reference_point_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one mismatched pair"):
        kl_reference_point(torch.tensor([]))


@pytest.mark.parametrize(
    ("desirable", "undesirable", "expected"),
    [
        (100, 100, Lambdas(1.0, 1.0)),  # ratio 1 is allowed
        (120, 100, Lambdas(1.0, 1.0)),  # 1.2 lies in [1, 4/3]
        (50, 200, Lambdas(4.0, 1.0)),  # λ_D·50 / 200 = 1
        (200, 50, Lambdas(1.0, 3.0)),  # 200 / (3·50) = 4/3
        (10, 1000, Lambdas(20.0, 1.0, bounded=True)),  # the rule asks for 100
        (1000, 10, Lambdas(1.0, 20.0, bounded=True)),  # the rule asks for 75
    ],
)
def test_lambda_rule(desirable: int, undesirable: int, expected: Lambdas) -> None:
    found = lambdas(desirable, undesirable)
    assert found.desirable == pytest.approx(expected.desirable)
    assert found.undesirable == pytest.approx(expected.undesirable)
    assert found.bounded == expected.bounded


@given(desirable=st.integers(1, 2000), undesirable=st.integers(1, 2000))
def test_lambda_rule_keeps_the_ratio_and_one_weight_at_one(
    desirable: int, undesirable: int
) -> None:
    found = lambdas(desirable, undesirable)
    assert min(found.desirable, found.undesirable) == 1.0
    if not found.bounded:
        ratio = found.desirable * desirable / (found.undesirable * undesirable)
        assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9


def test_lambda_given_for_one_class_leaves_the_other_to_the_rule() -> None:
    # λ_D = 2: 2·30 / (λ_U·40) in [1, 4/3] means λ_U in [1.125, 1.5]; nearest to 1 is 1.125
    assert lambdas(30, 40, given_d=2.0) == Lambdas(2.0, pytest.approx(1.125))
    # λ_U = 2: λ_D·30 / (2·40) in [1, 4/3] means λ_D in [2.67, 3.56]
    assert lambdas(30, 40, given_u=2.0) == Lambdas(pytest.approx(8 / 3), 2.0)
    assert lambdas(30, 40, given_d=0.5, given_u=7.0) == Lambdas(0.5, 7.0)


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_lambda_of_one_class_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="needs both classes"):
        lambdas(*counts)


def test_unknown_loss_is_refused_with_the_names_that_exist() -> None:
    assert loss_named("kto") is kto
    with pytest.raises(Refused, match="one of kto, not 'dpo'"):
        loss_named("dpo")
