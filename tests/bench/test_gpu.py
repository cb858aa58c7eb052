"""The dry form of `make test-gpu`: its parts in this process, on the CPU and a tiny model."""

import json
from pathlib import Path

import pytest

from bench.gpu import __main__ as command
from bench.gpu import parts, report
from bench.gpu.models import SEVEN_B, SMOLLM2, prepared
from bench.gpu.parts import PARTS, Job, Part, Result, measure, run
from trainer.backends import VARIABLE
from trainer.models.architecture import Architecture

by_name = {part.name: part for part in PARTS}


def job(name: str, directory: Path) -> Job:
    return Job(by_name[name], directory, "cpu").tiny()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of TRL and bitsandbytes
@pytest.mark.parametrize(
    "name",
    [
        "train 7B bf16",
        "decode 7B",
        pytest.param("train 7B 4bit", marks=pytest.mark.long),
        pytest.param("train 7B bf16 TRL", marks=pytest.mark.long),
    ],
)
def test_part_measures_a_rate(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch_reference")
    found = measure(job(name, tmp_path))
    assert (found.name, found.state) == (name, "measured")
    rates = list(found.tokens_per_second.values()) or [found.examples_per_second]
    assert all(rate is not None and rate > 0 for rate in rates)


@pytest.mark.slow
@pytest.mark.long
def test_whole_command_writes_json_and_table(tmp_path: Path) -> None:
    given = ["--device", "cpu", "--tiny", "--only", "decode SmolLM2", "--seconds", "1500"]
    assert command.main([*given, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "gpu.json").read_text())
    states = {part["name"]: part["state"] for part in content["parts"]}
    assert states["decode SmolLM2"] == "measured"
    assert "| decode SmolLM2 |  | 1: " in (tmp_path / "gpu.md").read_text()


def test_parts_that_cannot_run_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run(Job(Part("a", "suite", 9, needs="no_such_package"), tmp_path, "cpu"), 100)
    late = run(Job(Part("b", "suite", 9), tmp_path, "cpu"), 5)
    monkeypatch.setattr(parts, "_LEAST_SECONDS", 0.0)
    slow = run(Job(Part("c", "suite", 0.01), tmp_path, "cuda"), 100)
    assert [result.state for result in (missing, late, slow)] == ["skipped", "skipped", "failed"]
    measured = Result("d", "measured", tokens_per_second={"8": 12.3}, peak=3 * 2**30)
    table = report.write(tmp_path, {"torch": "2"}, [missing, late, slow, measured])
    assert "| a |  |  |  |  | skipped: no_such_package is not installed |" in table
    assert "| b |  |  |  |  | skipped: no time was left |" in table
    assert "failed: not done after 0 s" in table
    assert "| d |  | 8: 12 | 3.00 GiB |  |  |" in table


def test_without_a_gpu_the_message_names_the_dry_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command.main(["--out", str(tmp_path)]) == 1
    assert "no CUDA device here. ARGS='--device cpu --tiny'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="needs --tiny"):
        command.main(["--device", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="parts are tests, train SmolLM2 bf16"):
        command.chosen("cook", "cpu")


def test_models_have_the_sizes_that_they_are_named_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    monkeypatch.setattr("bench.gpu.models.ROOT", tmp_path)  # no SmolLM2 there
    for name, least, most in ((SEVEN_B, 6.5e9, 7e9), (SMOLLM2, 130e6, 140e6)):
        config = AutoConfig.from_pretrained(prepared(name, tmp_path))
        assert least < Architecture.of(config).parameters < most
