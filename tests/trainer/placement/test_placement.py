"""On a device, every tensor of training, evaluation and serving is where it should be, results are
those of the CPU, and the host waits for the device as rarely as it must."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.placement.run import SAMPLINGS, STEPS

pytestmark = [pytest.mark.slow, pytest.mark.long]

Found = dict[str, Any]
#: Seconds of all scenarios on a busy machine; an idle one needs two minutes.
DEADLINE = 1700
#: Sums in another order, and float32's last bits through two layers.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> dict[str, Found]:
    """Run all scenarios in a process of their own: the device belongs to a whole process."""
    scratch = tmp_path_factory.mktemp("placement")
    command = [sys.executable, "-m", "tests.trainer.placement.run", str(tiny_dir), str(scratch)]
    subprocess.run(
        command,
        check=True,
        timeout=DEADLINE,
        env={**os.environ, "PROSPECT_BACKEND": "torch_reference", "OMP_NUM_THREADS": "1"},
    )
    result: dict[str, Found] = json.loads((scratch / "found.json").read_text())
    return result


@pytest.mark.parametrize(("loss", "way"), STEPS)
def test_step_keeps_its_tensors_on_the_device(found: dict[str, Found], loss: str, way: str) -> None:
    scenario = found[f"step {loss} {way}"]
    assert scenario["error"] is None, scenario["error"]
    assert scenario["here"] == pytest.approx(scenario["cpu"], rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize(("loss", "way"), STEPS)
def test_step_reads_its_figures_once(found: dict[str, Found], loss: str, way: str) -> None:
    """However many packs it has; nothing is copied from memory that is not pinned."""
    scenario = found[f"step {loss} {way}"]
    assert len(scenario["reads"]) == 1, scenario["reads"]
    assert scenario["writes"] == []


@pytest.mark.parametrize("name", ["run", "run float16", "run dropout"])
def test_run_keeps_its_tensors_on_the_device(found: dict[str, Found], name: str) -> None:
    """Reference, steps, probes, validation, checkpoints and export."""
    scenario = found[name]
    assert scenario["error"] is None, scenario["error"]
    if name == "run":
        assert scenario["here"] == pytest.approx(scenario["cpu"], rel=1e-3, abs=1e-3)


def test_evaluation_keeps_its_tensors_on_the_device(found: dict[str, Found]) -> None:
    scenario = found["evaluation"]
    assert scenario["error"] is None, scenario["error"]
    assert scenario["here"][0] == scenario["cpu"][0]
    here, cpu = scenario["here"][1:], scenario["cpu"][1:]
    assert here == pytest.approx(cpu, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_engine_draws_the_same_tokens_on_the_device(found: dict[str, Found], name: str) -> None:
    scenario = found[f"engine {name}"]
    assert scenario["error"] is None, scenario["error"]
    assert scenario["here"] == scenario["cpu"]


@pytest.mark.parametrize("name", SAMPLINGS)
def test_engine_reads_once_a_token_for_the_whole_batch(found: dict[str, Found], name: str) -> None:
    """Only the chosen ids, and log-probabilities where they are asked for."""
    scenario = found[f"engine {name}"]
    assert len(scenario["reads"]) == (2 if name == "scored" else 1), scenario["reads"]
    assert scenario["writes"] == []


@pytest.mark.parametrize("name", ["forgotten matrix", "forgotten weights"])
def test_tensor_left_on_the_cpu_is_an_error(found: dict[str, Found], name: str) -> None:
    assert found[name]["error"].startswith("WrongDevice: ")
