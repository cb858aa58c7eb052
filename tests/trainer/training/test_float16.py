"""Training in float16: the loss is scaled, and a step whose gradient overflows is skipped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import MakeRun, events
from trainer.config import TrainConfig
from trainer.errors import Cancelled, Refused, RunFailed
from trainer.models.lora import MasterWeights
from trainer.signals import StopRequest
from trainer.training import train
from trainer.training.loop import Trainer
from trainer.training.loss_scale import LossScale

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def optimised(gradient: Sequence[float]) -> tuple[Tensor, torch.optim.Optimizer]:
    """Return a parameter with this gradient, and its optimiser."""
    parameter = torch.ones(len(gradient))
    parameter.grad = torch.tensor(gradient)
    return parameter, torch.optim.AdamW([parameter], lr=0.1, weight_decay=0, fused=True)


def stepped(scale: LossScale, gradient: Sequence[float]) -> tuple[float | None, Tensor]:
    parameter, optimizer = optimised(gradient)
    scale.unscale(optimizer)
    assert parameter.grad is not None
    finite = bool(parameter.grad.isfinite().all())
    return scale.step(optimizer, finite=finite, number=1, advice="…"), parameter


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_step_whose_gradient_overflows_is_skipped_and_the_scale_halves(broken: float) -> None:
    scale = LossScale(torch.float16, CPU)
    assert scale.scaled(torch.tensor(1.0)).item() == 65536
    lower, parameter = stepped(scale, [1.0, broken])
    assert lower == 32768
    assert parameter.tolist() == [1, 1]
    assert scale.scaled(torch.tensor(1.0)).item() == 32768
    lower, parameter = stepped(scale, [32768.0, -32768.0])
    assert lower is None
    assert parameter.tolist() == pytest.approx([0.9, 1.1])


def test_gradients_that_overflow_at_every_scale_fail_the_run() -> None:
    scale = LossScale(torch.float16, CPU)
    for _ in range(16):
        stepped(scale, [float("inf")])
    with pytest.raises(RunFailed, match="set dtype to float32 or bfloat16"):
        stepped(scale, [float("inf")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_are_not_scaled(dtype: torch.dtype) -> None:
    scale = LossScale(dtype, CPU)
    loss = torch.tensor(1.5)
    assert scale.scaled(loss) is loss
    assert scale.state() is None
    with pytest.raises(RunFailed, match="the gradient is not finite at step 1"):
        stepped(scale, [float("inf")])


def test_run_in_float16_learns_what_one_in_float32_does(make_run: MakeRun) -> None:
    half, whole = make_run("half", dtype="float16"), make_run("whole")
    train.train(half)
    train.train(whole)
    assert events(half, "start")[0]["dtype"] == "float16"
    for found, expected in zip(events(half, "step"), events(whole, "step"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=0.02)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.1)


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first backward pass of a run that starts at its first step overflows."""
    real, begin = MasterWeights.gradients_of, Trainer._one_step
    number = 0

    def one_step(trainer: Trainer, *given: Any, **more: Any) -> None:
        nonlocal number
        number = trainer.step + 1
        begin(trainer, *given, **more)

    def gradients_of(masters: MasterWeights, loss: Tensor) -> Any:
        found = real(masters, loss)
        return [part * float("inf") for part in found if part is not None] if number == 1 else found

    monkeypatch.setattr(Trainer, "_one_step", one_step)
    monkeypatch.setattr(MasterWeights, "gradients_of", gradients_of)


def states(run_dir: Path) -> dict[str, Any]:
    """Return the loss scale of each checkpoint."""
    found = sorted((run_dir / "checkpoints").glob("step-*/state.json"))
    return {path.parent.name: json.loads(path.read_text())["loss_scale"] for path in found}


@pytest.mark.usefixtures("overflowing")
def test_resumed_run_goes_on_with_the_scale_and_ends_the_same(make_run: MakeRun) -> None:
    quiet, resumed = make_run("quiet", dtype="float16"), make_run("resumed", dtype="float16")
    train.train(quiet)
    (warning,) = events(quiet, "warning")
    assert warning["message"] == (
        "step 1 changed nothing: its gradient overflows float16; the loss scale is 32768 now"
    )
    steps = events(quiet, "step")
    assert [found["step"] for found in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0]["grad_norm"] == 0
    assert steps[1]["reward_desirable"] == pytest.approx(0, abs=0.02)  # still the reference

    stop = StopRequest()
    real = Trainer._record_fit

    def stop_at_three(trainer: Trainer, *given: Any, **more: Any) -> None:
        real(trainer, *given, **more)
        stop.asked = trainer.step == 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_record_fit", stop_at_three)
        with pytest.raises(Cancelled):
            train.train(resumed, stop=stop)
    assert states(resumed)["step-00000003"]["scale"] == 32768
    train.train(resumed)
    assert events(resumed, "start")[-1]["resumed_from_step"] == 3
    assert states(resumed) == states(quiet)
    assert states(quiet)["step-00000005"] == {
        **states(resumed)["step-00000005"],
        "scale": 32768,
        "_growth_tracker": 4,
    }
    names = ("adapter/adapter_model.safetensors", "fit.jsonl")
    for name in names:
        assert (resumed / name).read_bytes() == (quiet / name).read_bytes()


def test_unknown_type_is_refused() -> None:
    with pytest.raises(Refused, match="dtype must be one of auto, float32, bfloat16, float16"):
        TrainConfig("some/model", "starter@1", dtype="float64")
