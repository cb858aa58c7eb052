"""When a run stops, and which of its adapters is kept."""

import pytest

from trainer.errors import RunFailed
from trainer.watch import Best, Limits, Probe, judge, raise_if_broken

LIMITS = Limits(kl_brake=0.5, patience=2)


def probe(step: int, loss: float | None = 0.4, kl: float = 0.1) -> Probe:
    return Probe(step, kl, 8, loss)


def test_lowest_heldout_loss_is_kept() -> None:
    best, why = judge(probe(10, 0.45), None, LIMITS)
    assert (best, why) == (Best(10, 0.45), None)
    best, _ = judge(probe(20, 0.40), best, LIMITS)
    assert best == Best(20, 0.40)
    best, why = judge(probe(30, 0.43), best, LIMITS)
    assert (best.step, best.worse, why) == (20, 1, None)


def test_rising_heldout_loss_stops_after_as_many_probes_as_patience_says() -> None:
    best, why = judge(probe(30, 0.43), Best(20, 0.40, worse=1), LIMITS)
    assert best.step == 20
    assert why is not None
    assert why.startswith("stopped at step 30: the loss on held-out examples has risen")
    assert "the adapter of step 20 is kept" in why


def test_probe_as_good_as_the_best_is_patient_again() -> None:
    best, why = judge(probe(30, 0.4001), Best(20, 0.40, worse=1), LIMITS)
    assert (best, why) == (Best(20, 0.40, worse=0), None)


def test_patience_may_be_endless() -> None:
    _, why = judge(probe(30, 0.9), Best(20, 0.40, worse=50), Limits(None, None))
    assert why is None


def test_without_held_out_examples_the_last_one_under_the_brake_is_kept() -> None:
    best, why = judge(probe(20, None), Best(10), LIMITS)
    assert (best, why) == (Best(20), None)
    best, why = judge(probe(30, None, kl=0.9), best, LIMITS)
    assert best == Best(20)
    assert why is not None
    assert "over the brake of 0.5; the adapter of step 20 is kept" in why


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (probe(10, kl=0.9), "no earlier adapter was under it at step 10"),
        (probe(10, kl=float("nan")), "KL probe is not finite"),
        (probe(10, loss=float("inf")), "held-out loss is not finite"),
    ],
)
def test_probe_that_leaves_nothing_to_keep_fails_the_run(found: Probe, reason: str) -> None:
    with pytest.raises(RunFailed, match=reason):
        judge(found, None, LIMITS)


def test_figures_that_are_no_numbers_fail_the_step() -> None:
    with pytest.raises(RunFailed, match="not a finite number at step 3"):
        raise_if_broken(step=3, loss=float("nan"), rewards=(0.0,), tokens=4)
    with pytest.raises(RunFailed, match="not a finite number"):
        raise_if_broken(step=3, loss=0.5, rewards=(0.0, float("inf")), tokens=4)
    with pytest.raises(RunFailed, match=r"exploded \(12\.0 nats a token"):
        raise_if_broken(step=3, loss=0.5, rewards=(-24.0, 24.0), tokens=4)
    raise_if_broken(step=3, loss=0.5, rewards=(-20.0, 19.0), tokens=4)
