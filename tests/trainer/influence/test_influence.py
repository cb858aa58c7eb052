"""`python -m trainer influence`: dot products of gradients at a finished run's adapter."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import MakeRun, events, example
from trainer.__main__ import main
from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.config import Packs, TrainConfig
from trainer.data.examples import write_examples
from trainer.errors import Cancelled
from trainer.events import EventLog
from trainer.influence.command import influence
from trainer.models.loading import load_base
from trainer.signals import StopRequest
from trainer.training.loop import Trainer
from trainer.training.run_directory import load_run, read_run
from trainer.training.train import default_packs, train

TRAINED, VALIDATION = 9, 16


def finished(make_run: MakeRun, **config: Any) -> Path:
    """Return the input of an influence job for a run that has just been trained."""
    run_dir = make_run(**config)
    train(run_dir)
    directory = run_dir / "influence"
    directory.mkdir()
    for name in ("config.json", "examples.jsonl"):
        (directory / name).write_bytes((run_dir / name).read_bytes())
    validation = [example(number) for number in range(30, 30 + VALIDATION)]
    write_examples(directory / "validation.jsonl", validation)
    paths = {"adapter": "../adapter", "checkpoints": "../checkpoints"}
    (directory / "influence.json").write_text(json.dumps(paths))
    return directory


def report_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "report.json").read_text())
    return found


def without_checkpoints(directory: Path) -> None:
    (directory / "influence.json").write_text(json.dumps({"adapter": "../adapter"}))


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired", "kto_clamped", "sft"])
def test_sum_over_a_step_is_the_product_of_the_trainers_gradients(
    make_run: MakeRun, loss: str
) -> None:
    directory = finished(make_run, loss=loss, batch_size=9)
    without_checkpoints(directory)

    influence(directory)

    report = report_of(directory)
    config, examples = read_run(directory)
    base = load_base(config.base_model, dtype="float32", device="cpu")
    validation = [example(number) for number in range(30, 30 + VALIDATION)]
    run = load_run(config, examples, base, identity="x", validation=validation)
    with EventLog(directory / "other.jsonl") as log:
        trainer = Trainer(run, directory, log, StopRequest())
        products = []
        for point in ("start", "end"):
            if point == "end":
                trainer.lora.load(load_file(directory.parent / "adapter" / WEIGHTS))
            [step] = trainer.steps_of(0)
            trainer.runner.backward(step, beta=config.beta)
            on_train = torch.cat([part.flatten() for part in trainer.masters.gradients()]).clone()
            assert trainer.validation_step is not None
            found = trainer.validation.backward(trainer.validation_step, beta=config.beta)
            on_validation = torch.cat([part.flatten() for part in trainer.masters.gradients()])
            products.append(float(on_train @ on_validation) * len(step.examples))
    labels = {each.id: each.label for each in run.examples}
    total = sum(each["up" if labels[each["id"]] else "down"] for each in report["examples"])
    expected = sum(products) / 2
    assert total == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert abs(expected) > 1e-6
    assert report["validation_loss"] == pytest.approx(found.loss, rel=1e-5)


def test_opposite_label_pulls_the_other_way(make_run: MakeRun) -> None:
    directory = finished(make_run)

    influence(directory)

    rows = report_of(directory)["examples"]
    assert [row["id"] for row in rows] == [f"e{number}" for number in range(TRAINED)]
    assert all(row["up"] * row["down"] < 0 for row in rows)


def test_kept_checkpoints_count_as_much_as_the_adapter(make_run: MakeRun) -> None:
    directory = finished(make_run, epochs=3)

    influence(directory)
    with_checkpoints = report_of(directory)
    without_checkpoints(directory)
    influence(directory)

    # nine examples in batches of four, three times: the last two checkpoints are kept
    assert with_checkpoints["points"] == ["step 0", "step 8", "step 7", "step 9"]
    assert report_of(directory)["points"] == ["step 0", "step 9"]
    assert report_of(directory)["examples"] != with_checkpoints["examples"]
    assert report_of(directory)["validation_loss"] == with_checkpoints["validation_loss"]


def test_same_files_give_the_same_report(make_run: MakeRun) -> None:
    directory = finished(make_run)
    influence(directory)
    first = report_of(directory)

    influence(directory)

    assert report_of(directory)["examples"] == first["examples"]


@pytest.mark.parametrize(
    ("config", "why"),
    [({"loss": "dpo"}, "learns from pairs"), ({"lora_init": "pissa"}, "PiSSA, DoRA")],
)
def test_what_cannot_be_estimated_is_refused(
    make_run: MakeRun, config: dict[str, Any], why: str
) -> None:
    directory = finished(make_run, **config)

    assert main(["influence", str(directory)]) == 4

    [failed] = events(directory, "failed")
    assert why in failed["reason"]
    assert not (directory / "report.json").exists()


def test_too_few_validation_examples_are_refused(make_run: MakeRun) -> None:
    directory = finished(make_run)
    write_examples(directory / "validation.jsonl", [example(30)])

    assert main(["influence", str(directory)]) == 4
    assert "too few validation examples" in events(directory, "failed")[0]["reason"]


def test_another_runs_adapter_is_refused(make_run: MakeRun) -> None:
    directory = finished(make_run)
    (directory / "influence.json").write_text('{"adapter": "../missing", "other": 1}')

    assert main(["influence", str(directory)]) == 4
    assert "unknown field 'other'" in events(directory, "failed")[0]["reason"]


def test_progress_counts_the_examples(make_run: MakeRun) -> None:
    directory = finished(make_run)

    influence(directory)

    phases = [event for event in events(directory, "phase") if event["done"] == event["total"]]
    assert {"influence, step 6", "influence, step 5"} <= {event["phase"] for event in phases}


def test_stop_ends_it_as_cancelled(make_run: MakeRun) -> None:
    directory = finished(make_run)

    def packs(config: TrainConfig, devices: int) -> tuple[Packs, str]:
        signal.raise_signal(signal.SIGTERM)  # while the model is about to be loaded
        return default_packs(config, devices)

    with pytest.raises(Cancelled):
        influence(directory, choose_packs=packs)

    assert events(directory)[-1]["type"] == "cancelled"
    assert not (directory / "report.json").exists()
