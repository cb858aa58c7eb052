"""`python -m trainer adopt`: foreign adapters are verified against the base model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import make_tiny_adapter, make_tiny_model
from trainer.__main__ import main
from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, verify_adapter
from trainer.engine.adapters import read_adapter
from trainer.models.layers import layer_shapes
from trainer.models.loading import LoadedBase, load_base

Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(str(make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")), device="cpu")


@pytest.fixture
def run_dir(base: LoadedBase, tmp_path: Path) -> Path:
    """A run that takes over an adapter of another tool: PEFT's two files."""
    make_tiny_adapter(tmp_path / "made", base)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in (CONFIG, WEIGHTS):
        (tmp_path / "made" / name).rename(foreign / name)
    directory = tmp_path / "run"
    directory.mkdir()
    config = {"base_model": base.name, "adapter_name": "bot@3", "imported": str(foreign)}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def adopt(run_dir: Path) -> int:
    return main(["adopt", str(run_dir)])


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_adapter_is_written_as_one_that_the_engine_serves(run_dir: Path, base: LoadedBase) -> None:
    source = run_dir.parent / "foreign"

    assert adopt(run_dir) == 0

    manifest, _ = read_adapter(run_dir / "adapter", base, layer_shapes(base.model), name="bot@3")
    assert manifest.train["imported"]["sha256"]
    written, given = load_file(run_dir / "adapter" / WEIGHTS), load_file(source / WEIGHTS)
    assert all(torch.equal(written[name], tensor) for name, tensor in given.items())
    assert (run_dir / "fit.jsonl").read_text() == ""
    assert events(run_dir)[-1]["type"] == "done"


def test_second_call_finds_the_work_done(run_dir: Path) -> None:
    adopt(run_dir)
    before = (run_dir / "adapter" / "manifest.json").read_bytes()

    assert adopt(run_dir) == 0
    assert (run_dir / "adapter" / "manifest.json").read_bytes() == before
    assert [event["type"] for event in events(run_dir)].count("done") == 1


def spoil(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], float("nan"))


def widen(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    tensors[name] = torch.zeros(tensors[name].shape[0], 99)


def rename(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors[name.replace("layers.0", "layers.7")] = tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (spoil, "NaN"),
        (widen, "is for a layer of"),
        (rename, "no linear layer of the base model"),
        (lambda tensors, config: config.update(r=300), "above the limit"),
        (lambda tensors, config: config.update(modules_to_save=["lm_head"]), "modules_to_save"),
        (lambda tensors, config: config.update(use_dora=True), "use_dora"),
        (lambda tensors, config: config.update(init_lora_weights="pissa"), "pissa"),
    ],
)
def test_adapter_that_does_not_fit_is_refused_with_the_reason(
    change: Change, why: str, run_dir: Path
) -> None:
    source = run_dir.parent / "foreign"
    tensors, config = load_file(source / WEIGHTS), json.loads((source / CONFIG).read_text())
    change(tensors, config)
    save_file(tensors, source / WEIGHTS)
    (source / CONFIG).write_text(json.dumps(config))

    assert adopt(run_dir) == 4

    assert not (run_dir / "adapter").exists()
    failed = events(run_dir)[-1]
    assert failed["type"] == "failed"
    assert why in failed["reason"]


def test_links_are_not_followed(run_dir: Path) -> None:
    source = run_dir.parent / "foreign"
    (source / WEIGHTS).rename(run_dir.parent / "elsewhere")
    (source / WEIGHTS).symlink_to(run_dir.parent / "elsewhere")

    assert adopt(run_dir) == 4
    assert "not a regular file" in events(run_dir)[-1]["reason"]


def test_settings_that_do_not_change_the_result_are_dropped(
    run_dir: Path, base: LoadedBase
) -> None:
    source = run_dir.parent / "foreign"
    config = json.loads((source / CONFIG).read_text())
    strange = {"revision": "x", "corda_config": None, "note": "<script>"}
    (source / CONFIG).write_text(json.dumps(config | strange))

    assert adopt(run_dir) == 0

    written = json.loads((run_dir / "adapter" / CONFIG).read_text())
    assert "note" not in written
    assert written["base_model_name_or_path"] == base.name
    verify_adapter(run_dir / "adapter", base_fingerprint=base.fingerprint, max_rank=256)
