"""Class weights λ: the class with less weight counts more."""

from collections.abc import Iterable
from typing import Protocol

from trainer.errors import Refused
from trainer.losses.base import ExampleLoss, Lambdas, Loss

# Eq. 8 asks for λ_D·n_D / (λ_U·n_U) in [1, 4/3].
RATIO_LOW = 1.0
RATIO_HIGH = 4 / 3
# A weight beyond this lets a handful of examples steer the whole step; better to ask for votes.
MAX_LAMBDA = 20.0


class Weighed(Protocol):
    """An example of either class."""

    @property
    def label(self) -> bool: ...
    @property
    def weight(self) -> float: ...


def summed_weights(examples: Iterable[Weighed]) -> tuple[float, float]:
    """Return the summed weights of desirable and of undesirable examples: W_D, W_U."""
    sums = {True: 0.0, False: 0.0}
    for example in examples:
        sums[example.label] += example.weight
    return sums[True], sums[False]


def class_weights(
    loss: Loss,
    desirable: float,
    undesirable: float,
    *,
    given_d: float | None = None,
    given_u: float | None = None,
) -> Lambdas:
    """Return λ from the summed weights of the classes, by `lambdas`, for a loss of examples.

    For the other losses it is 1 and 1, whatever is given: in pairs the classes are equal in number,
    and `sft` has one.
    """
    if not isinstance(loss, ExampleLoss):
        return Lambdas(1.0, 1.0)
    return lambdas(desirable, undesirable, given_d=given_d, given_u=given_u)


def lambdas(
    desirable: float,
    undesirable: float,
    *,
    given_d: float | None = None,
    given_u: float | None = None,
) -> Lambdas:
    """Return class weights from the summed example weights W of each class.

    The rule raises λ of the class that weighs less until λ_D·W_D / (λ_U·W_U) is in [1, 4/3]; the
    other λ is 1, and none exceeds MAX_LAMBDA. A given λ is taken as it is, and the other one
    follows from the same interval. Raises Refused when a class has no weight. Ethayarajh et al.
    2024, Eq. 8, which has the number of examples n where all weights are 1.
    """
    if desirable <= 0 or undesirable <= 0:
        raise Refused(
            f"λ needs both classes, but the summed weights are {desirable:g} of desirable and "
            f"{undesirable:g} of undesirable examples: collect votes of the other kind"
        )
    if given_d is not None and given_u is not None:
        return Lambdas(given_d, given_u)
    if given_d is not None:
        # λ_U may be anything in [λ_D·W_D / (4/3·W_U), λ_D·W_D / W_U]: the value nearest to 1.
        most = given_d * desirable / (RATIO_LOW * undesirable)
        least = given_d * desirable / (RATIO_HIGH * undesirable)
        wanted = min(max(1.0, least), most)
        return Lambdas(given_d, min(wanted, MAX_LAMBDA), bounded=wanted > MAX_LAMBDA)
    fixed = 1.0 if given_u is None else given_u
    least = RATIO_LOW * fixed * undesirable / desirable
    most = RATIO_HIGH * fixed * undesirable / desirable
    if given_u is None and most < 1.0:
        wanted = desirable / (RATIO_HIGH * undesirable)
        return Lambdas(1.0, min(wanted, MAX_LAMBDA), bounded=wanted > MAX_LAMBDA)
    wanted = min(max(1.0, least), most)
    return Lambdas(min(wanted, MAX_LAMBDA), fixed, bounded=wanted > MAX_LAMBDA)
