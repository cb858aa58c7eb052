"""Adapter directories: complete or absent on disk, and refused with all their errors."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.artifacts import adapter_directory
from trainer.artifacts.adapter_directory import (
    CARD,
    CONFIG,
    MANIFEST,
    WEIGHTS,
    verify_adapter,
    write_adapter,
)
from trainer.errors import BadArtifact

BASE = "b" * 64
SHAPES = {"model.layers.0.self_attn.q_proj": (6, 8), "model.layers.0.mlp.up_proj": (12, 8)}
Q = "base_model.model.model.layers.0.self_attn.q_proj"
Change = Callable[[Path], object]


def write(path: Path, *, rank: int = 4) -> Path:
    write_adapter(
        path,
        name="starter@2",
        tensors={
            f"{Q}.lora_A.weight": torch.ones(rank, 8),
            f"{Q}.lora_B.weight": torch.zeros(6, rank),
        },
        adapter_config={"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none"},
        base_model="models/tiny",
        base_sha256=BASE,
        rank=rank,
        created="2026-01-01T00:00:00+00:00",
        train={"steps": 3},
        card="# card\n",
    )
    return path


def change_json(name: str, /, **values: object) -> Change:
    def change(path: Path) -> None:
        raw = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({**raw, **values}))

    return change


def rehash(path: Path) -> None:
    """Make the manifest match the files, as an attacker would."""
    files = {name: adapter_directory.file_sha256(path / name) for name in (WEIGHTS, CONFIG, CARD)}
    change_json(MANIFEST, files=files)(path)


def change_tensor(name: str, tensor: torch.Tensor) -> Change:
    def change(path: Path) -> None:
        save_file({**load_file(path / WEIGHTS), name: tensor}, path / WEIGHTS)
        rehash(path)

    return change


def add_pickle(path: Path) -> None:
    (path / "adapter_model.bin").write_bytes(pickle.dumps({"weights": 1}))


def swap_for_symlink(path: Path) -> None:
    outside = path.parent / "outside.safetensors"
    (path / WEIGHTS).rename(outside)
    (path / WEIGHTS).symlink_to(outside)


def name_a_file_outside(path: Path) -> None:
    files = json.loads((path / MANIFEST).read_text())["files"]
    change_json(MANIFEST, files={**files, "../../secret": "0" * 64})(path)


def both(*changes: Change) -> Change:
    def change(path: Path) -> None:
        for one in changes:
            one(path)

    return change


def test_written_adapter_verifies_and_records_its_identity(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter")
    manifest = verify_adapter(path, base_fingerprint=BASE, max_rank=64)
    assert (manifest.name, manifest.rank, manifest.train) == ("starter@2", 4, {"steps": 3})
    assert manifest.sha256 == adapter_directory.file_sha256(path / WEIGHTS)
    assert {entry.name for entry in path.iterdir()} == {WEIGHTS, CONFIG, CARD, MANIFEST}
    assert verify_adapter(path, base_fingerprint=None, max_rank=64) == manifest
    strict = verify_adapter(
        path, base_fingerprint=BASE, max_rank=64, shapes=SHAPES, name="starter@2"
    )
    assert strict == manifest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_pickle, "adapter_model.bin may hold a pickle"),
        (swap_for_symlink, f"{WEIGHTS} is a symlink"),
        (lambda path: (path / "sub").mkdir(), "sub is not a regular file"),
        (lambda path: (path / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
        (lambda path: (path / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        (name_a_file_outside, "'../../secret', which is not a plain file name"),
        (
            lambda path: (path / CARD).write_text("other"),
            f"{CARD} is not the file that was written",
        ),
        (lambda path: (path / "extra.txt").write_text("x"), "extra.txt is not listed"),
        (change_json(MANIFEST, base_sha256="c" * 64), "trained on another base model"),
        (change_json(MANIFEST, format=2), "has format 2"),
        (change_json(MANIFEST, name="../x"), "not of the form <project>@<n>"),
        (change_json(MANIFEST, run="rm -rf"), "unknown field 'run'"),
        (change_json(MANIFEST, rank="4"), "rank must be int"),
        (change_json(MANIFEST, rank=8), "says rank 8"),
        (lambda path: (path / MANIFEST).write_text("{"), "not valid JSON"),
        (lambda path: (path / MANIFEST).write_text("[]"), "must hold a JSON object"),
        (both(change_json(CONFIG, peft_type="LOHA"), rehash), "only LORA is served"),
        (both(change_json(CONFIG, use_dora=True), rehash), "use_dora is not served"),
        (both(change_json(CONFIG, use_rslora="no"), rehash), "use_rslora must be true or false"),
        (both(change_json(CONFIG, arrow_config={"top_k": 1}), rehash), "arrow_config is not"),
        (both(change_json(CONFIG, init_lora_weights="pissa_niter_4"), rehash), "changes the base"),
        (both(change_json(CONFIG, auto_mapping={"parent_library": "os"}), rehash), "auto_mapping"),
        (both(change_json(CONFIG, r=0), rehash), "r must be a positive whole number"),
        (both(change_json(CONFIG, lora_alpha="NaN"), rehash), "lora_alpha must be a positive"),
        (both(lambda path: (path / WEIGHTS).write_bytes(b"x" * 99), rehash), "cannot be read"),
        (change_tensor(f"{Q}.lora_A.weight", torch.full((4, 8), torch.nan)), "NaN or infinite"),
        (change_tensor(f"{Q}.lora_B.weight", torch.full((6, 4), torch.inf)), "NaN or infinite"),
        (change_tensor(f"{Q}.lora_A.weight", torch.ones(3, 8)), "does not fit rank 4"),
        (change_tensor(f"{Q}.lora_A.weight", torch.ones(4, 8, dtype=torch.int32)), "type I32"),
        (change_tensor("model.embed_tokens.weight", torch.ones(2, 2)), "is no LoRA matrix"),
        (
            change_tensor(f"{Q}x.lora_A.weight", torch.ones(4, 8)),
            "model.layers.0.self_attn.q_projx lacks lora_B",
        ),
        (
            change_tensor(f"{Q}.lora_B.weight", torch.ones(7, 4)),
            "model.layers.0.self_attn.q_proj is for a layer of 7×8, here it has 6×8",
        ),
        (
            both(
                change_tensor(f"{Q}x.lora_A.weight", torch.ones(4, 8)),
                change_tensor(f"{Q}x.lora_B.weight", torch.ones(6, 4)),
            ),
            "model.layers.0.self_attn.q_projx is no linear layer of the base",
        ),
        (change_json(MANIFEST, name="starter@3"), "it is starter@3, not starter@2"),
    ],
)
def test_invalid_adapter_is_refused(tmp_path: Path, change: Change, reason: str) -> None:
    path = write(tmp_path / "adapter")
    change(path)
    with pytest.raises(BadArtifact) as caught:
        verify_adapter(path, base_fingerprint=BASE, max_rank=64, shapes=SHAPES, name="starter@2")
    assert reason in str(caught.value)


def test_rank_above_the_limit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter", rank=8)
    with pytest.raises(BadArtifact, match="rank 8 is above the limit of 4"):
        verify_adapter(path, base_fingerprint=BASE, max_rank=4)


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter", rank=8)
    (path / CARD).write_text("other")
    change_json(MANIFEST, base_sha256="c" * 64)(path)
    shapes = {"model.layers.0.self_attn.q_proj": (6, 9)}
    with pytest.raises(BadArtifact) as caught:
        verify_adapter(path, base_fingerprint=BASE, max_rank=4, shapes=shapes, name="other@1")
    assert len(caught.value.faults) == 5


def test_directory_that_is_a_symlink_or_missing_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "adapter")
    (tmp_path / "link").symlink_to(tmp_path / "adapter")
    for path in (tmp_path / "link", tmp_path / "nowhere", tmp_path / "adapter" / CARD):
        with pytest.raises(BadArtifact, match="no directory of its own"):
            verify_adapter(path, base_fingerprint=BASE, max_rank=64)


def test_failed_write_keeps_the_previous_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "adapter")
    before = (path / MANIFEST).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapter_directory, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert (path / MANIFEST).read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]
