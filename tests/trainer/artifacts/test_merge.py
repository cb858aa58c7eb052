"""Merging: the same model without LoRA, written completely or not at all."""

import json
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny_adapter, make_tiny_model
from trainer.__main__ import main
from trainer.artifacts import merge as merging
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.artifacts.merge import merge
from trainer.errors import BadArtifact, Refused
from trainer.models.loading import LoadedBase, load_base

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


def logits(base: LoadedBase) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base.model(IDS).logits.float()
    return found


@pytest.fixture
def adapter(tiny: LoadedBase, tmp_path: Path) -> Path:
    make_tiny_adapter(tmp_path / "adapter", tiny)
    return tmp_path / "adapter"


def test_command_writes_a_model_with_tokenizer_and_card(
    tiny_dir: Path, tiny: LoadedBase, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "merged"
    command = ["merge", "--model", str(tiny_dir), "--adapter", str(adapter), "--out", str(out)]
    assert main(command) == 0
    assert [path.name for path in out.parent.iterdir()] == ["merged"]
    merged = load_base(str(out), dtype="float32", device="cpu")
    with adapted(tiny, adapter):
        torch.testing.assert_close(logits(merged), logits(tiny), atol=1e-4, rtol=1e-4)
    question = [{"role": "user", "content": "Bread?"}]
    assert merged.tokenizer.apply_chat_template(question, return_dict=False) == (
        tiny.tokenizer.apply_chat_template(question, return_dict=False)
    )
    assert merged.model.generation_config.eos_token_id == tiny.tokenizer.eos_token_id
    card = (out / "README.md").read_text()
    assert tiny.fingerprint in card
    assert "starter@1" in card


def test_weights_are_added_in_float32_and_rounded_once(
    tiny_dir: Path, adapter: Path, tmp_path: Path
) -> None:
    out = merge(str(tiny_dir), adapter, tmp_path / "merged", dtype="bfloat16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    exact = load_base(str(merge(str(tiny_dir), adapter, tmp_path / "exact")), dtype="float32")
    merged = load_base(str(out), dtype="bfloat16", device="cpu")
    name = "model.layers.0.self_attn.q_proj.weight"
    rounded = merged.model.get_parameter(name)
    stored = load_base(str(tiny_dir), dtype="bfloat16", device="cpu").model.get_parameter(name)
    change = exact.model.get_parameter(name) - load_base(
        str(tiny_dir), dtype="float32", device="cpu"
    ).model.get_parameter(name)
    assert torch.equal(rounded, (stored.float() + change).bfloat16())


def test_merged_bfloat16_is_as_close_as_bfloat16_allows(
    tiny_dir: Path, adapter: Path, tmp_path: Path
) -> None:
    half = load_base(str(tiny_dir), dtype="bfloat16", device="cpu")
    with adapted(half, adapter):
        beside = logits(half)
    out = merge(str(tiny_dir), adapter, tmp_path / "merged", dtype="bfloat16")
    within = logits(load_base(str(out), dtype="bfloat16", device="cpu"))
    exact = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with adapted(exact, adapter):
        truth = logits(exact)
    # rounding W + BA loses no more than rounding W and adding BA afterwards
    assert (within - truth).norm() < 1.5 * (beside - truth).norm()


def test_existing_directory_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match="exists already"):
        merge("no model", tmp_path / "no adapter", tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused, match="exists already"):
        merge("no model", tmp_path / "no adapter", tmp_path / "link")


def test_damaged_adapter_or_one_of_another_base_is_refused(
    adapter: Path, tiny_dir: Path, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", layers=1)
    with pytest.raises(BadArtifact, match=r"another base model.*is no linear layer"):
        merge(str(other), adapter, tmp_path / "out")
    (adapter / WEIGHTS).write_bytes(b"x")
    with pytest.raises(BadArtifact, match="its SHA-256 differs"):
        merge(str(tiny_dir), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failed_write_leaves_nothing(
    adapter: Path, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        merge(str(tiny_dir), adapter, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
