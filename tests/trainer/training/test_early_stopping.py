"""When a run stops, and which of its adapters is kept."""

import json
import re
from pathlib import Path

import pytest

from feedback_app.training.runs.config import RUN_FIELDS
from tests.trainer.conftest import MakeRun, events, example
from trainer.artifacts.adapter_directory import MANIFEST, WEIGHTS
from trainer.data.examples import write_examples
from trainer.errors import RunFailed
from trainer.training.early_stopping import (
    ADVICE,
    Best,
    Limits,
    Probe,
    judge,
    probe_interval,
    raise_if_diverged,
    ranking,
)
from trainer.training.train import train

pytestmark = pytest.mark.slow

LIMITS = Limits(kl_brake=0.5, patience=2)


def probe(step: int, loss: float | None = 0.4, kl: float = 0.1) -> Probe:
    return Probe(step, kl, 8, loss)


def test_lowest_validation_loss_is_kept() -> None:
    best, why = judge(probe(10, 0.45), None, LIMITS)
    assert (best, why) == (Best(10, 0.45), None)
    best, _ = judge(probe(20, 0.40), best, LIMITS)
    assert best == Best(20, 0.40)
    best, why = judge(probe(30, 0.43), best, LIMITS)
    assert (best.step, best.worse, why) == (20, 1, None)


def test_rising_validation_loss_stops_after_patience_probes() -> None:
    best, why = judge(probe(30, 0.43), Best(20, 0.40, worse=1), LIMITS)
    assert best.step == 20
    assert why is not None
    assert why.startswith("stopped at step 30: the loss on validation examples has risen")
    assert "the adapter of step 20 is kept" in why


def test_probe_equal_to_the_best_resets_patience() -> None:
    best, why = judge(probe(30, 0.4001), Best(20, 0.40, worse=1), LIMITS)
    assert (best, why) == (Best(20, 0.40, worse=0), None)


def test_ranking_is_the_share_of_pairs_in_which_the_up_has_the_higher_reward() -> None:
    assert ranking([2.0, 1.0, -1.0, 0.0], [True, True, False, False]) == 1
    assert ranking([2.0, -1.0, 1.0, 0.0], [True, True, False, False]) == 0.5
    assert ranking([1.0, 1.0], [True, False]) == 0.5
    # a higher reward of every example, as a smaller β allows, changes nothing
    assert ranking([20.0, -10.0, 10.0, 0.0], [True, True, False, False]) == 0.5
    assert ranking([1.0, 2.0], [True, True]) is None


def test_patience_can_be_unlimited() -> None:
    _, why = judge(probe(30, 0.9), Best(20, 0.40, worse=50), Limits(None, None))
    assert why is None


def test_last_adapter_under_the_brake_is_kept_without_validation_examples() -> None:
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
        (probe(10, loss=float("inf")), "validation loss is not finite"),
    ],
)
def test_run_without_an_adapter_to_keep_fails(found: Probe, reason: str) -> None:
    with pytest.raises(RunFailed, match=reason):
        judge(found, None, LIMITS)


@pytest.mark.parametrize(
    ("total_steps", "interval"), [(1, 1), (3, 1), (4, 1), (8, 2), (9, 3), (40, 10), (1000, 10)]
)
def test_short_run_with_a_brake_is_probed_four_times(total_steps: int, interval: int) -> None:
    assert probe_interval(10, kl_brake=0.5, total_steps=total_steps) == interval
    assert probe_interval(10, kl_brake=None, total_steps=total_steps) == 10


def test_advice_names_settings_of_the_form() -> None:
    named = set(re.findall(r"[a-z]+_[a-z_]+", ADVICE))
    assert named
    assert named <= set(RUN_FIELDS)


def test_nan_figures_fail_the_step() -> None:
    with pytest.raises(RunFailed, match="not a finite number at step 3"):
        raise_if_diverged(step=3, loss=float("nan"), rewards=(0.0,), tokens=4)
    with pytest.raises(RunFailed, match="not a finite number"):
        raise_if_diverged(step=3, loss=0.5, rewards=(0.0, float("inf")), tokens=4)
    with pytest.raises(RunFailed, match=r"exploded \(12\.0 nats per token"):
        raise_if_diverged(step=3, loss=0.5, rewards=(-24.0, 24.0), tokens=4)
    raise_if_diverged(step=3, loss=0.5, rewards=(-20.0, 19.0), tokens=4)


# -- whole runs


def overfitting_run(make_run: MakeRun, name: str, epochs: int) -> Path:
    """Write a run of three steps per epoch that memorises its nine examples; similar examples are
    for validation."""
    settings = {"lr_schedule": "constant", "warmup_ratio": 0.0, "probe_every": 3, "patience": 2}
    run_dir = make_run(name, epochs=epochs, **settings)
    write_examples(run_dir / "validation.jsonl", [example(number) for number in range(30, 42)])
    return run_dir


def test_rising_validation_loss_ends_the_run_with_its_best_adapter(make_run: MakeRun) -> None:
    run_dir = overfitting_run(make_run, "longer", epochs=12)
    train(run_dir)
    losses = {found["step"]: found["validation_loss"] for found in events(run_dir, "probe")}
    best = min(losses, key=lambda step: losses[step])
    last = max(losses)
    assert 3 < best < last < 36
    (braked,) = events(run_dir, "braked")
    assert braked["step"] == last == len(events(run_dir, "step"))
    assert (
        f"has risen from {losses[best]:.4f} to {losses[last]:.4f} over 2 probes; the adapter of "
        f"step {best} is kept. Fewer epochs or a lower learning_rate would do"
    ) in braked["message"]
    manifest = json.loads((run_dir / "adapter" / MANIFEST).read_text())
    assert manifest["train"]["steps"] == best

    # a run configured to end at its best step writes the same bytes
    shorter = overfitting_run(make_run, "shorter", epochs=best // 3)
    train(shorter)
    assert (run_dir / "adapter" / WEIGHTS).read_bytes() == (
        shorter / "adapter" / WEIGHTS
    ).read_bytes()
