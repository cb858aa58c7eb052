"""`plan`: the size, time and memory of a run, without training it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import MakeRun, events, example
from trainer.__main__ import main
from trainer.backends import VARIABLE
from trainer.errors import Refused
from trainer.planning.plan import as_text, plan, plan_model
from trainer.training.train import train

pytestmark = pytest.mark.slow


def test_plan_counts_the_work_of_training(make_run: MakeRun) -> None:
    found = plan(make_run())
    assert (found["examples"], found["desirable"], found["undesirable"]) == (9, 5, 4)
    assert (found["lambda_d"], found["lambda_u"]) == (1.0, 1.0)
    assert found["steps"] == 6
    assert found["estimated_seconds"] > 0


def test_plan_of_served_examples_counts_their_tokens(make_run: MakeRun) -> None:
    served = [
        example(n, prompt_token_ids=(5,) * 10, completion_token_ids=(6,) * n) for n in range(1, 7)
    ]
    assert plan(make_run(examples=served))["tokens"] == 6 * 10 + sum(range(1, 7))


def test_plan_refuses_the_same_input_as_training(make_run: MakeRun) -> None:
    with pytest.raises(Refused, match="at least 2 are needed"):
        plan(make_run(examples=[example(0)]))


def test_longer_training_is_estimated_longer(make_run: MakeRun) -> None:
    short, long = plan(make_run("a", epochs=1)), plan(make_run("b", epochs=100))
    assert long["steps"] == 100 * short["steps"]
    assert long["estimated_seconds"] >= short["estimated_seconds"]


@pytest.mark.parametrize("loss", ["kto", "dpo", "sft"])
def test_plan_has_the_same_number_of_steps_as_training(make_run: MakeRun, loss: str) -> None:
    run_dir = make_run(loss=loss)
    steps = plan(run_dir)["steps"]
    train(run_dir)
    assert [event["step"] for event in events(run_dir, "step")][-1] == steps


def test_plan_estimates_memory_here_and_on_other_devices(make_run: MakeRun) -> None:
    found = plan(make_run())
    assert found["device"] == "cpu, float32"
    here = found["memory"]
    assert here["total"] == sum(size for name, size in here.items() if name != "total")
    assert all(size > 0 for size in here.values())
    kinds = [(row["devices"], row["base"]) for row in found["devices"]]
    assert len(set(kinds)) == len(kinds) == 11
    assert {devices for devices, _ in kinds} == {1, 2, 4, 8}
    by_kind = {kind: row["memory"] for kind, row in zip(kinds, found["devices"], strict=True)}
    assert by_kind[1, "4-bit"]["base"] < by_kind[1, "bfloat16"]["base"] < here["base"]


def test_plan_says_what_adapter_is_trained_and_by_whose_code(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(**settings: Any) -> str:
        return str(plan(make_run(f"run {len(said)}", **settings))["adapter"])

    said: list[str] = []
    said.append(planned(use_dora=True, target_modules="mlp"))
    said.append(planned(lora_init="pissa"))
    monkeypatch.setenv(VARIABLE, "torch_reference")
    said.append(planned(target_modules="attention"))
    assert said == [
        "DoRA of rank 4 on the MLPs, in PEFT's layers; no engine serves it: merge it",
        "PiSSA of rank 4, saved with rank 8 on all layers, in PEFT's layers",
        "LoRA of rank 4 on the attention, in PEFT's layers",
    ]


def test_more_tokens_at_a_time_need_more_memory(make_run: MakeRun) -> None:
    small = plan(make_run("a", token_budget=40, held_tokens=0))["memory"]
    large = plan(make_run("b", token_budget=400, held_tokens=0))["memory"]
    held = plan(make_run("c", token_budget=40, held_tokens=400))["memory"]
    # smaller packs share fewer prefixes than one large pack
    assert small["activations"] < large["activations"] < held["activations"]
    # with dropout packs cannot be held for z₀, and a loss without z₀ need not
    dropout = plan(make_run("d", token_budget=40, held_tokens=400, lora_dropout=0.1))["memory"]
    assert dropout == small
    assert plan(make_run("e", token_budget=40, held_tokens=400, loss="bco"))["memory"] == small


def test_plan_sets_lambda_by_the_summed_weights_of_each_class(make_run: MakeRun) -> None:
    weighed = [
        example(number, weight=1.0 if number % 2 == 0 else 0.25, label=number % 2 == 0)
        for number in range(8)
    ]
    found = plan(make_run(examples=weighed))
    assert (found["lambda_d"], found["lambda_u"]) == (1.0, pytest.approx(3.0))
    assert "λ is 1.00 for ups and 3.00 for downs (summed weights 4 and 1)" in as_text(found)


def test_plan_of_a_model_and_a_file_needs_no_run_directory(
    make_run: MakeRun, tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run()
    given = ["plan", "--model", str(tiny_dir), "--examples", str(run_dir / "examples.jsonl")]
    settings = {"batch_size": 3, "device": "cpu", "dtype": "float32", "lora_r": 64}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    given += ["--config", str(tmp_path / "settings.json")]
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["examples"], found["steps"]) == (9, 2 * 3)
    assert found["memory"]["adapter"] == 16 * plan(run_dir)["memory"]["adapter"]

    assert main(given) == 0
    said = capsys.readouterr().out
    assert "9 examples (5 up, 4 down)" in said
    (row,) = [line for line in said.splitlines() if line.startswith("here (cpu, float32)")]
    assert row.split()[-1] == f"{found['memory']['total'] / 2**30:.2f}"
    assert "8 × CUDA, 4-bit, a copy each (DDP)" in said
    assert "8 × CUDA, bfloat16, a share each (FSDP)" in said
    # the configuration refuses it
    assert "4-bit, a share each (FSDP)" not in said


def test_plan_of_a_model_refuses_invalid_arguments(
    make_run: MakeRun, tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = make_run() / "examples.jsonl"
    (tmp_path / "settings.json").write_text('{"lora_r": 0, "color": 1}')
    with pytest.raises(Refused, match=r"unknown field 'color'; lora_r must be at least 1"):
        plan_model(str(tiny_dir), examples, tmp_path / "settings.json")
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(Refused, match="must hold a JSON object"):
        plan_model(str(tiny_dir), examples, tmp_path / "settings.json")
    assert main(["plan", "--model", str(tiny_dir)]) == Refused.exit_code
    assert main(["plan", "run", "--model", str(tiny_dir)]) == Refused.exit_code
    assert capsys.readouterr().err.count("either RUN_DIR or --model and --examples") == 2
