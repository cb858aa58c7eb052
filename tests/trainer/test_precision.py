"""`dtype: auto`: chosen by the features of the processor and by timing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import needs_compiled
from trainer import precision
from trainer.engine.loading import load_served
from trainer.models.loading import load_base
from trainer.planning.plan import as_text, plan
from trainer.precision import automatic_precision, measured_ratio

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`processor(features, ratio)`: simulate a CPU with these features and this speed ratio."""
    monkeypatch.setenv("PROSPECT_CACHE_DIR", str(tmp_path))
    measured: list[float] = []

    def pretend(features: dict[str, bool] | None, ratio: float) -> list[float]:
        monkeypatch.setattr(precision, "_cpu_features", lambda: features)

        def measure() -> float:
            measured.append(ratio)
            return ratio

        monkeypatch.setattr(precision, "measured_ratio", measure)
        return measured

    return pretend


def test_cpu_without_bfloat16_units_computes_in_float32(processor: Any) -> None:
    measured = processor({"avx2": True, "avx512_bf16": False}, 8.0)
    found = automatic_precision(CPU)
    assert str(found) == "float32: this CPU has no bfloat16 units"
    assert not measured, "the features must decide without a measurement"


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_bfloat16_units_measured_as_fast_are_used(processor: Any, feature: str) -> None:
    processor({feature: True}, 3.9)
    found = automatic_precision(CPU)
    assert found.dtype is torch.bfloat16
    assert "3.9 times the speed of float32" in found.reason


@pytest.mark.parametrize("features", [{"avx512_bf16": True}, None])
def test_slow_measurement_overrides_the_features(processor: Any, features: Any) -> None:
    """Instructions may be disabled by a setting or a virtual machine, or features unknown."""
    processor(features, 0.01)
    found = automatic_precision(CPU)
    assert found.dtype is torch.float32
    assert "0.01 times the speed of float32" in found.reason


def test_processor_is_measured_once(processor: Any, tmp_path: Path) -> None:
    measured = processor({"avx512_bf16": True}, 4.0)
    assert automatic_precision(CPU) == automatic_precision(CPU)
    assert len(measured) == 1
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{half a fi")
    assert automatic_precision(CPU).dtype is torch.bfloat16
    assert len(measured) == 2, "a damaged cache file is measured again"
    processor({"avx512_bf16": True, "avx512_fp16": True}, 0.5)
    assert automatic_precision(CPU).dtype is torch.float32, "another processor is measured again"


def test_another_instruction_set_setting_is_measured_again(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = processor({"avx512_bf16": True}, 4.0)
    automatic_precision(CPU)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    automatic_precision(CPU)
    assert len(measured) == 2


def test_unwritable_cache_is_ignored(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROSPECT_CACHE_DIR", "/proc/no-such-place")
    processor({"avx512_bf16": True}, 2.0)
    assert automatic_precision(CPU).dtype is torch.bfloat16


def test_real_measurement_agrees_with_an_emulated_processor() -> None:
    """oneDNN limited to AVX2 emulates bfloat16 on any machine: at a tenth of the speed or less."""
    code = "from trainer.precision import measured_ratio; print(measured_ratio())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < float(done.stdout) < 0.5
    assert measured_ratio() > 0


def test_gpu_that_emulates_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation  # as on a T4 or a V100

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert automatic_precision(torch.device("cuda")).dtype is torch.float32


def test_loaded_base_gives_the_reason(processor: Any, tiny_dir: Path) -> None:
    processor({"avx2": True}, 0.01)
    base = load_base(str(tiny_dir), device="cpu")
    assert base.dtype is torch.float32
    assert base.precision == "float32: this CPU has no bfloat16 units"
    assert load_base(str(tiny_dir), dtype="bfloat16", device="cpu").precision == (
        "bfloat16: set by the configuration"
    )


def test_plan_gives_the_reason(processor: Any, make_run: Any) -> None:
    processor({"avx2": True}, 0.01)
    found = plan(make_run(dtype="auto"))
    assert found["device"] == "cpu, float32"
    assert "Precision here: float32: this CPU has no bfloat16 units." in as_text(found)


# -- the type of the engine's weights


@needs_compiled
def test_engine_stores_bfloat16_where_it_converts_weights_itself(
    processor: Any, tiny_dir: Path
) -> None:
    processor({"avx2": True}, 0.01)
    base = load_served(str(tiny_dir), device="cpu")
    assert (base.dtype, base.model.dtype) == (torch.bfloat16, torch.bfloat16)
    assert base.precision == (
        "weights in bfloat16, computed in float32: this CPU has no bfloat16 units"
    )
    assert load_served(str(tiny_dir), dtype="float32", device="cpu").dtype is torch.float32


def test_engine_computes_in_float32_with_transformers(
    processor: Any, tiny_dir: Path, tmp_path: Path
) -> None:
    """A Llama with another activation function has no compiled step."""
    processor({"avx2": True}, 0.01)
    copy = shutil.copytree(tiny_dir, tmp_path / "relu")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    base = load_served(str(copy), device="cpu")
    assert base.model.dtype is torch.float32
    assert base.precision == "float32: this CPU has no bfloat16 units"


def test_fast_bfloat16_cpu_computes_in_bfloat16(processor: Any, tiny_dir: Path) -> None:
    processor({"avx512_bf16": True}, 4.0)
    base = load_served(str(tiny_dir), device="cpu")
    assert base.dtype is torch.bfloat16
    assert base.precision.startswith("bfloat16: ")
