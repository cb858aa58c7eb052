"""`plan --footprint`: numbers from which the memory of any run is computed without torch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.trainer.conftest import MakeRun, example
from trainer.__main__ import main
from trainer.data.examples import write_examples
from trainer.errors import Refused
from trainer.losses import LOSSES
from trainer.models.architecture import Architecture
from trainer.models.quantisation import FOUR_BIT
from trainer.planning import footprint as module
from trainer.planning.footprint import footprint, total_memory, ways
from trainer.planning.memory import Load, Setup, estimate
from trainer.planning.plan import plan

CPU = torch.device("cpu")


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_numbers_give_the_estimate_of_any_rank_and_load(device: str, devices: int) -> None:
    config = transformers.MistralConfig(num_hidden_layers=2, vocab_size=5000)
    architecture = Architecture.of(config)
    precision = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known = [
        way
        for way in ways(architecture, Setup(0, device=device, devices=devices))
        if way.dtype in precision
    ]
    assert len(known) == 12
    for way in known:
        for rank, tokens, pairs in ((1, 17, 40), (16, 4096, 0), (64, 900, 123_456)):
            setup = Setup(
                rank,
                precision[way.dtype],
                device,
                quantisation=way.quantisation,
                devices=devices,
                checkpointing=way.gradient_checkpointing,
            )
            exact = estimate(architecture, Load(tokens, pairs), setup).total
            found = way.fixed + way.rank * rank + (way.token + way.token_rank * rank) * tokens
            assert found + way.pair * pairs == pytest.approx(exact, rel=1e-6)


@pytest.mark.slow
def test_footprint_measures_examples_before_they_are_cut(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run(max_length=64, dtype="float32")
    model = json.loads((run_dir / "config.json").read_text())["base_model"]
    file = tmp_path / "examples.jsonl"
    lengths = (3, 200, 40)
    write_examples(
        file,
        [
            example(n, prompt_token_ids=(5,) * 10, completion_token_ids=(6,) * length)
            for n, length in enumerate(lengths)
        ],
    )
    arguments = ["plan", "--model", model, "--examples", str(file), "--footprint"]
    assert main(arguments) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["lengths"] == [210, 50, 13]
    assert (found["device"], found["devices"], found["free"]) == ("cpu", 1, None)
    assert found["total"] == total_memory(CPU)
    assert found["packs"] == [
        {"token_budget": 4096, "held_tokens": 8192, "gradient_checkpointing": False}
    ]
    assert found["waits"] == ["kto", "kto_clamped"]
    assert set(found["waits"]) < set(LOSSES)
    assert {way["quantisation"] for way in found["ways"]} == {None, FOUR_BIT}
    # what a run of the same model needs is at least what holds nothing yet
    plain = next(way for way in found["ways"] if way["dtype"] == "float32")
    assert 0 < plain["fixed"] < plan(run_dir)["memory"]["total"]


def test_footprint_names_the_faults_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(Refused, match="must hold a JSON object"):
        footprint("tiny", tmp_path / "none.jsonl", tmp_path / "config.json")


def test_memory_of_a_container_is_what_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(module, "CGROUP", limit)
    host = total_memory(CPU)
    assert host is not None
    limit.write_text("max\n")
    assert total_memory(CPU) == host
    limit.write_text("1048576\n")
    assert total_memory(CPU) == 1_048_576
