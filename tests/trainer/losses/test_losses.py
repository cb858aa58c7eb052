"""Every loss, z₀, δ, the clamp and the class weights compared with values computed by hand.

σ(x) below is 1 / (1 + e^−x); numbers in comments were computed on paper and with a calculator.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.errors import Refused
from trainer.losses import (
    ANCHOR_DECAY,
    LOSSES,
    MAX_LAMBDA,
    TOKEN_CLAMP,
    ExampleLoss,
    Lambdas,
    LikelihoodLoss,
    PairLoss,
    apo_zero_unpaired,
    bco,
    class_weights,
    dpo,
    kl_reference_point,
    kto,
    lambdas,
    loss_named,
    sft,
    summed_rewards,
    update_anchor,
)

EVEN = Lambdas(1.0, 1.0)
OnExamples = Callable[[Tensor, Tensor, Tensor, float, Lambdas], Tensor]


def double(*values: float, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def one(
    loss: OnExamples,
    reward: float,
    *,
    label: bool,
    anchor: float = 0.0,
    beta: float = 1.0,
    weights: Lambdas = EVEN,
) -> tuple[float, float]:
    """Return loss and derivative with respect to the reward of one example."""
    rewards = double(reward, grad=True)
    zero_dim = torch.tensor(anchor, dtype=torch.float64)
    found = loss(rewards, torch.tensor([label]), zero_dim, beta, weights)
    found.sum().backward()
    assert rewards.grad is not None
    return found.item(), rewards.grad.item()


def one_loss(reward: float, *, label: bool, z0: float, beta: float, weights: Lambdas) -> float:
    return one(kto, reward, label=label, anchor=z0, beta=beta, weights=weights)[0]


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
    # d/dr λ(1 − σ(a)) = −λβσ(a)(1 − σ(a)) with a = β(r − z₀) = 0.2·(1 − 0.5) = 0.1:
    # σ(0.1)·σ(−0.1) = 0.24937604019289197; −4/3·0.2 of it is −0.0665002773847712
    weights = Lambdas(4 / 3, 3.0)
    _, slope = one(kto, 1.0, label=True, anchor=0.5, beta=0.2, weights=weights)
    assert slope == pytest.approx(-0.0665002773847712, abs=1e-12)
    # a down flips the sign of a, which does not change σ(a)σ(−a), and of the slope: +3·0.2·0.249…
    _, slope = one(kto, 1.0, label=False, anchor=0.5, beta=0.2, weights=weights)
    assert slope == pytest.approx(0.1496256241157352, abs=1e-12)


def test_kto_far_from_the_reference_keeps_precision() -> None:
    # 1 − σ(40) is 4.2e-18: computed as a difference it would be exactly zero
    loss = one_loss(40.0, label=True, z0=0.0, beta=1.0, weights=EVEN)
    assert loss == pytest.approx(math.exp(-40), rel=1e-6)


@given(
    reward=st.floats(-50, 50),
    z0=st.floats(0, 50),
    beta=st.floats(0.01, 2),
)
def test_kto_is_between_zero_and_lambda_with_the_right_sign(
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


def test_apo_zero_by_hand() -> None:
    # βr = 0.5·3 = 1.5: σ(1.5) = 0.817574476193644, σ(−1.5) = 0.182425523806356,
    # σ(1.5)σ(−1.5) = 0.149146452070333
    weights = Lambdas(2.0, 3.0)
    loss, slope = one(apo_zero_unpaired, 3.0, label=True, beta=0.5, weights=weights)
    assert loss == pytest.approx(2 * 0.182425523806356, abs=1e-12)
    assert slope == pytest.approx(-2 * 0.5 * 0.149146452070333, abs=1e-12)
    loss, slope = one(apo_zero_unpaired, 3.0, label=False, beta=0.5, weights=weights)
    assert loss == pytest.approx(3 * 0.817574476193644, abs=1e-12)
    assert slope == pytest.approx(3 * 0.5 * 0.149146452070333, abs=1e-12)


def test_apo_zero_does_not_depend_on_the_reference_point() -> None:
    # "zero": its anchor is the reference itself, for any value of z₀
    near = one(apo_zero_unpaired, 3.0, label=True, anchor=0.0)
    assert one(apo_zero_unpaired, 3.0, label=True, anchor=7.0) == near
    assert one(kto, 3.0, label=True, anchor=7.0) != near


def test_bco_by_hand() -> None:
    # β(r − δ) = 0.5·(3 − 1) = 1: −log σ(1) = log(1 + e⁻¹) = 0.313261687518223,
    # −log σ(−1) = 1.313261687518223; slopes −λβσ(−1) and +λβσ(1)
    weights = Lambdas(2.0, 3.0)
    loss, slope = one(bco, 3.0, label=True, anchor=1.0, beta=0.5, weights=weights)
    assert loss == pytest.approx(2 * 0.313261687518223, abs=1e-12)
    assert slope == pytest.approx(-2 * 0.5 * 0.268941421369995, abs=1e-12)
    loss, slope = one(bco, 3.0, label=False, anchor=1.0, beta=0.5, weights=weights)
    assert loss == pytest.approx(3 * 1.313261687518223, abs=1e-12)
    assert slope == pytest.approx(3 * 0.5 * 0.731058578630005, abs=1e-12)


@pytest.mark.slow
@given(up=st.floats(-30, 30), down=st.floats(-30, 30), beta=st.floats(0.01, 2))
def test_bco_bounds_dpo_from_above_and_is_closest_at_the_midpoint(
    up: float, down: float, beta: float
) -> None:
    # (1 + e^−β(u−δ))(1 + e^β(d−δ)) = 1 + e^−β(u−d) + e^−β(u−δ) + e^β(d−δ) ≥ 1 + e^−β(u−d),
    # and the product of the two terms between does not depend on δ, so they are least where equal:
    # u − δ = δ − d. That is why δ is the midpoint of the class means.
    def of_pair(delta: float) -> float:
        ups = one(bco, up, label=True, anchor=delta, beta=beta)[0]
        return ups + one(bco, down, label=False, anchor=delta, beta=beta)[0]

    middle = (up + down) / 2
    assert of_pair(middle) >= dpo(double(up), double(down), beta).item()
    for delta in (middle - 1, middle + 1, 0.0):
        assert of_pair(delta) >= of_pair(middle) - 1e-12


def test_dpo_by_hand() -> None:
    # β(r_up − r_down): 0.5·(3 − 1) = 1 and 0.5·(−1 − 3) = −2;
    # −log σ(1) = 0.313261687518223, −log σ(−2) = 2.126928011042973
    ups, downs = double(3.0, -1.0, grad=True), double(1.0, 3.0, grad=True)
    found = dpo(ups, downs, 0.5)
    assert found.tolist() == pytest.approx([0.313261687518223, 2.126928011042973], abs=1e-12)
    # slopes −βσ(−1) and −βσ(2), and their negatives for the downs
    found.sum().backward()
    slopes = [-0.5 * 0.268941421369995, -0.5 * 0.880797077977882]
    assert ups.grad is not None
    assert downs.grad is not None
    assert ups.grad.tolist() == pytest.approx(slopes, abs=1e-12)
    assert downs.grad.tolist() == pytest.approx([-slope for slope in slopes], abs=1e-12)


def test_sft_by_hand() -> None:
    # −(−6)/4 = 1.5 nats per token, −(−5)/2 = 2.5; slopes −1/4 and −1/2
    logprobs = double(-6.0, -5.0, grad=True)
    found = sft(logprobs, torch.tensor([4, 2]))
    assert found.tolist() == [1.5, 2.5]
    found.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.25, -0.5]


EXTREME = (-1e30, -1e4, -90.0, 0.0, 90.0, 1e4, 1e30)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("sft", "dpo")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_rewards_give_finite_losses_and_slopes(name: str, dtype: torch.dtype) -> None:
    loss = loss_named(name)
    assert isinstance(loss, ExampleLoss)
    for label in (True, False):
        rewards = torch.tensor(EXTREME, dtype=dtype, requires_grad=True)
        labels = torch.full((len(EXTREME),), label)
        anchor = torch.tensor(3.0, dtype=dtype)
        found = loss.function(rewards, labels, anchor, 0.5, Lambdas(MAX_LAMBDA, 1.0))
        found.sum().backward()
        assert rewards.grad is not None
        assert found.isfinite().all()
        assert rewards.grad.isfinite().all()
        # never the wrong sign: ups are not pushed down, downs not up
        assert ((rewards.grad <= 0) if label else (rewards.grad >= 0)).all()


def test_extreme_pairs_give_finite_losses_and_slopes() -> None:
    ups = torch.tensor(EXTREME, requires_grad=True)
    downs = torch.tensor(EXTREME[::-1], requires_grad=True)
    found = dpo(ups, downs, 0.5)
    found.sum().backward()
    assert ups.grad is not None
    assert found.isfinite().all()
    assert ups.grad.isfinite().all()
    assert sft(torch.tensor(EXTREME), torch.full((7,), 3)).isfinite().all()


@pytest.mark.parametrize("function", [kto, apo_zero_unpaired, bco])
def test_nan_reward_is_propagated(function: OnExamples) -> None:
    rewards, labels = torch.tensor([float("nan")] * 2), torch.tensor([True, False])
    assert function(rewards, labels, torch.tensor(0.0), 0.5, EVEN).isnan().all()


def summed(
    ratios: Sequence[float], owners: Sequence[int], *, clamped: bool
) -> tuple[list[float], list[float]]:
    """Return rewards of two examples, and the gradient of each reward in its tokens."""
    tokens = double(*ratios, grad=True)
    found = summed_rewards(
        tokens, torch.tensor(owners), examples=2, clamp=TOKEN_CLAMP if clamped else None
    )
    found.sum().backward()
    assert tokens.grad is not None
    return found.tolist(), tokens.grad.tolist()


def test_reward_is_the_sum_over_the_tokens_of_the_example() -> None:
    # example 0: 0.5 − 2 + 3; example 1: −0.25 + 0.75, its tokens in any order
    rewards, slopes = summed([0.5, -0.25, -2.0, 3.0, 0.75], [0, 1, 0, 0, 1], clamped=False)
    assert rewards == [1.5, 0.5]
    assert slopes == [1.0] * 5


def test_clamp_applies_to_each_token_and_stops_its_gradient() -> None:
    # example 0: 0.5 − 1 (from −2) + 1.5 (from 3) = 1; example 1 is within the clamp
    rewards, slopes = summed([0.5, -0.25, -2.0, 3.0, 0.75], [0, 1, 0, 0, 1], clamped=True)
    assert rewards == [1.0, 0.5]
    assert slopes == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_clamp_bounds_are_inclusive() -> None:
    rewards, slopes = summed([-1.0, 1.5, -1.0001, 1.5001], [0, 0, 1, 1], clamped=True)
    assert rewards == [0.5, 0.5]
    assert slopes == [1.0, 1.0, 0.0, 0.0]


def test_kto_clamped_is_kto_of_clamped_tokens_by_hand() -> None:
    # r = 1 as above, z₀ = 0, β = 0.5: loss σ(−0.5) = 0.377540668798145, slope in each token that
    # is inside −0.5·σ(0.5)σ(−0.5) = −0.5·0.235003712201594
    loss = loss_named("kto_clamped")
    assert isinstance(loss, ExampleLoss)
    tokens = double(0.5, -2.0, 3.0, grad=True)
    rewards = summed_rewards(tokens, torch.zeros(3, dtype=torch.long), examples=1, clamp=loss.clamp)
    found = loss.function(rewards, torch.tensor([True]), torch.tensor(0.0), 0.5, EVEN)
    found.sum().backward()
    assert found.item() == pytest.approx(0.377540668798145, abs=1e-12)
    assert tokens.grad is not None
    assert tokens.grad.tolist() == pytest.approx([-0.117501856100797, 0.0, 0.0], abs=1e-12)


def test_anchor_is_a_moving_average_of_the_midpoint_of_the_classes() -> None:
    # ups (3 + 5)/2 = 4, down −1: midpoint 1.5, for any counts; from 0 it moves a tenth: 0.15
    rewards, labels = double(3.0, 5.0, -1.0, grad=True), torch.tensor([True, True, False])
    first = update_anchor(None, rewards, labels)
    assert first == pytest.approx(0.15)
    # 0.15 + 0.1·(1.5 − 0.15)
    assert update_anchor(first, rewards, labels) == pytest.approx(0.285)


def test_anchor_moves_half_as_far_in_a_step_of_one_class() -> None:
    # 2 + 0.05·(−6 − 2)
    assert update_anchor(2.0, double(-4.0, -8.0), torch.tensor([False, False])) == pytest.approx(
        1.6
    )
    assert update_anchor(2.0, double(42.0), torch.tensor([True])) == pytest.approx(4.0)


def test_anchor_converges_to_the_midpoint_from_any_start() -> None:
    value: float | None = 1000.0
    for _ in range(400):
        value = update_anchor(
            value, double(3.0, -1.0, -1.0, -1.0), torch.tensor([True] + [False] * 3)
        )
    assert value == pytest.approx(1.0)
    assert 0 < ANCHOR_DECAY < 1


def test_anchor_without_rewards_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one reward"):
        update_anchor(1.0, double(), torch.tensor([], dtype=torch.bool))


def test_reference_point_is_the_mean_clamped_at_zero_without_gradient() -> None:
    rewards = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    z0, unclamped = kl_reference_point(rewards)
    assert (z0.item(), unclamped.item()) == (3.0, 3.0)
    assert not z0.requires_grad

    z0, unclamped = kl_reference_point(-rewards)
    assert (z0.item(), unclamped.item()) == (0.0, -3.0)


def test_reference_point_without_rewards_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one mismatched pair"):
        kl_reference_point(torch.tensor([]))


@pytest.mark.parametrize(
    ("desirable", "undesirable", "expected"),
    [
        (100, 100, Lambdas(1.0, 1.0)),  # ratio 1 is allowed
        (120, 100, Lambdas(1.0, 1.0)),  # 1.2 is in [1, 4/3]
        (50, 200, Lambdas(4.0, 1.0)),  # λ_D·50 / 200 = 1
        (200, 50, Lambdas(1.0, 3.0)),  # 200 / (3·50) = 4/3
        (10, 1000, Lambdas(20.0, 1.0, bounded=True)),  # the rule gives 100
        (1000, 10, Lambdas(1.0, 20.0, bounded=True)),  # the rule gives 75
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


def test_lambda_given_for_one_class_sets_the_other_by_the_rule() -> None:
    # λ_D = 2: 2·30 / (λ_U·40) in [1, 4/3] means λ_U in [1.125, 1.5]; nearest to 1 is 1.125
    assert lambdas(30, 40, given_d=2.0) == Lambdas(2.0, pytest.approx(1.125))
    # λ_U = 2: λ_D·30 / (2·40) in [1, 4/3] means λ_D in [2.67, 3.56]
    assert lambdas(30, 40, given_u=2.0) == Lambdas(pytest.approx(8 / 3), 2.0)
    assert lambdas(30, 40, given_d=0.5, given_u=7.0) == Lambdas(0.5, 7.0)


def test_lambda_rule_uses_sums_of_uneven_weights() -> None:
    # three ups of 0.5 and one down of 6: λ_D·1.5 / 6 = 1
    assert lambdas(3 * 0.5, 6.0) == Lambdas(4.0, 1.0)
    # sums below one are valid: 0.8 / (λ_U·0.2) = 4/3
    assert lambdas(0.8, 0.2) == Lambdas(1.0, pytest.approx(3.0))


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_lambda_of_one_class_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="needs both classes"):
        lambdas(*counts)


def test_class_weights_are_only_for_unpaired_losses() -> None:
    assert class_weights(loss_named("bco"), 50, 200) == Lambdas(4.0, 1.0)
    assert class_weights(loss_named("kto"), 50, 200, given_u=2.0) == lambdas(50, 200, given_u=2.0)
    assert class_weights(loss_named("dpo"), 50, 200) == EVEN
    assert class_weights(loss_named("sft"), 5, 0, given_d=3.0) == EVEN


def test_registry_has_the_requirements_of_each_loss() -> None:
    needs = {
        loss.name: (loss.unit, loss.anchor, loss.reference, loss.clamp, loss.ups_only)
        for loss in LOSSES.values()
    }
    assert needs == {
        "kto": ("example", "z0", True, None, False),
        "kto_clamped": ("example", "z0", True, (-1.0, 1.5), False),
        "apo_zero_unpaired": ("example", "none", True, None, False),
        "bco": ("example", "mean", True, None, False),
        "sft": ("example", "none", False, None, True),
        "dpo": ("pair", "none", True, None, False),
    }
    functions = {loss.name: loss.function for loss in LOSSES.values()}
    assert functions == {
        "kto": kto,
        "kto_clamped": kto,
        "apo_zero_unpaired": apo_zero_unpaired,
        "bco": bco,
        "sft": sft,
        "dpo": dpo,
    }
    assert isinstance(loss_named("dpo"), PairLoss)
    assert isinstance(loss_named("sft"), LikelihoodLoss)


def test_renamed_loss_is_refused_with_its_new_name() -> None:
    with pytest.raises(Refused, match=r"not 'kto_humanline': it is called 'kto_clamped' now"):
        loss_named("kto_humanline")


def test_unknown_loss_is_refused_with_the_known_names() -> None:
    names = "kto, kto_clamped, apo_zero_unpaired, bco, sft, dpo"
    with pytest.raises(Refused, match=f"one of {names}, not 'ppo'"):
        loss_named("ppo")
