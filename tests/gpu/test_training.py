"""A step's loss, rewards and gradients by the CUDA backend compared with the reference on the
device, and whole runs that are stopped and resumed."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.gpu.conftest import MakeBase
from tests.gpu.device import DEVICE, apart, base_on_device, on_device
from tests.trainer.conftest import events, write_run
from tests.trainer.training.test_step import Bench, step_of
from trainer.backends import VARIABLE, backend_for
from trainer.errors import Cancelled
from trainer.signals import StopRequest
from trainer.training.loss_scale import LossScale
from trainer.training.step import Budget, StepResult
from trainer.training.train import train

pytestmark = on_device

needs_4bit = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs bitsandbytes, for bases in four bits"
)
#: Largest difference of a reward in nats, and relative distance of the whole gradient.
BOUNDS = {"float32": (1e-3, 1e-3), "float16": (0.1, 0.02), "bfloat16": (0.5, 0.1)}
FOUR_BIT = pytest.param("Llama", "bfloat16", "4bit", marks=needs_4bit)


@pytest.mark.parametrize(
    ("family", "dtype", "quantisation"),
    [
        ("Llama", "float32", None),
        ("Llama", "float16", None),
        ("Qwen3", "bfloat16", None),
        ("Gemma2", "bfloat16", None),
        FOUR_BIT,
    ],
)
@pytest.mark.parametrize("budget", [(10_000, 10_000), (60, 0)], ids=["one pack", "two passes"])
def test_step_equals_the_reference(
    make_base: MakeBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    dtype: str,
    quantisation: str | None,
    budget: tuple[int, int],
) -> None:
    found: dict[str, tuple[StepResult, Tensor]] = {}
    for backend in ("torch_reference", "cuda"):
        monkeypatch.setenv(VARIABLE, backend)
        base = base_on_device(make_base(family), dtype, quantisation)
        bench = Bench(base, tmp_path / backend, "kto", Budget(*budget))
        runner = replace(bench.runner, loss_scale=LossScale(base.dtype, base.device))
        result = runner.backward(step_of("kto"), beta=0.1)
        gradient = torch.cat([slope.flatten() for slope in bench.masters.gradients()])
        assert gradient.isfinite().all()
        found[backend] = (result, gradient)
        assert backend_for(DEVICE).new_warnings() == []
    (ours, slopes), (reference, expected) = found["cuda"], found["torch_reference"]
    reward, relative = BOUNDS[dtype]
    assert ours.tokens == reference.tokens
    assert ours.loss == pytest.approx(reference.loss, abs=reward / 4)
    assert ours.rewards == pytest.approx(reference.rewards, abs=reward)
    assert apart(slopes, expected) < relative


class AfterSteps(StopRequest):
    """Asks a run to stop once it has made so many steps."""

    def __init__(self, run_dir: Path, steps: int) -> None:
        self.run_dir, self.steps = run_dir, steps

    @property
    def asked(self) -> bool:  # type: ignore[override]
        path = self.run_dir / "events.jsonl"
        return path.exists() and len(events(self.run_dir, "step")) >= self.steps


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"dtype": "bfloat16"}, id="bfloat16"),
        pytest.param({"dtype": "float16", "gradient_checkpointing": True}, id="float16"),
        pytest.param({"dtype": "bfloat16", "compile": True}, id="compiled"),
        pytest.param({"dtype": "bfloat16", "quantisation": "4bit"}, id="4bit", marks=needs_4bit),
    ],
)
def test_resumed_run_learns_what_an_undisturbed_one_does(
    make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, str]
) -> None:
    monkeypatch.setenv(VARIABLE, "cuda")
    given = {"learning_rate": 1e-3, "device": DEVICE, "probe_every": 2, **config}
    whole = write_run(tmp_path / "whole", make_base("Llama"), **given)
    stopped = write_run(tmp_path / "stopped", make_base("Llama"), **given)
    train(whole)
    with pytest.raises(Cancelled):
        train(stopped, stop=AfterSteps(stopped, 2))
    train(stopped)
    assert events(stopped, "start")[-1]["resumed_from_step"] == 2
    assert len(events(stopped, "step")) == len(events(whole, "step"))
    for found, expected in zip(events(stopped, "step"), events(whole, "step"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=0.03)
    assert not [event for event in events(whole, "warning") if "FlexAttention" in event["message"]]
    for run_dir in (whole, stopped):
        assert (run_dir / "adapter" / "adapter_model.safetensors").exists()
