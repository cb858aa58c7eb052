"""Packs, checkpointing and their reason, from the free memory of a GPU."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from tests.trainer.conftest import MakeRun, events
from trainer.config import Packs, Refused, TrainConfig
from trainer.models.architecture import Architecture
from trainer.planning import plan
from trainer.planning.memory import Load, Setup, estimate
from trainer.planning.packs import LARGE, fitting, packs_here
from trainer.training.train import train

GIB = 2**30
SEVEN_B = transformers.MistralConfig()
SMALL = transformers.Qwen2Config(
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
CONFIG = TrainConfig("some/model", "starter@1")


@pytest.fixture(scope="module")
def seven_b() -> Architecture:
    return Architecture.of(SEVEN_B)


@pytest.fixture(scope="module")
def small() -> Architecture:
    """Half a billion parameters, in the shape of Qwen 2.5 0.5B."""
    return Architecture.of(SMALL)


@pytest.mark.parametrize("free", [20, 24, 40, 48, 80, 140])
def test_packs_that_are_chosen_fit(seven_b: Architecture, free: int) -> None:
    packs, reason = fitting(CONFIG, seven_b, Setup(CONFIG.lora_r), free * GIB)
    setup = Setup(CONFIG.lora_r, checkpointing=packs.gradient_checkpointing)
    tokens = max(packs.token_budget, packs.held_tokens)
    assert estimate(seven_b, Load(tokens, 0), setup).total < 0.9 * free * GIB
    assert f"of {free}.0 GiB that are free" in reason
    assert "may not be enough" not in reason


def test_more_memory_is_used_for_speed(small: Architecture) -> None:
    """Up to a billion parameters layers are checkpointed last."""
    found = [fitting(CONFIG, small, Setup(CONFIG.lora_r), free * GIB)[0] for free in (3, 8, 40)]
    assert found[-1] == Packs(4096, 8192, gradient_checkpointing=False)
    assert not found[1].gradient_checkpointing
    assert found[1].held_tokens < 8192
    assert found[0].gradient_checkpointing


def test_more_than_a_billion_parameters_are_checkpointed(
    seven_b: Architecture, small: Architecture
) -> None:
    assert small.parameters < LARGE < seven_b.parameters
    chosen, reason = fitting(CONFIG, seven_b, Setup(CONFIG.lora_r), 140 * GIB)
    assert chosen == Packs(4096, 8192, gradient_checkpointing=True)
    assert "layers checkpointed" in reason
    for given in (True, False):
        config = replace(CONFIG, gradient_checkpointing=given)
        for architecture in (small, seven_b):
            found, _ = fitting(config, architecture, Setup(CONFIG.lora_r), 140 * GIB)
            assert found.gradient_checkpointing is given


def test_model_that_does_not_fit_says_what_to_change(seven_b: Architecture) -> None:
    packs, reason = fitting(CONFIG, seven_b, Setup(CONFIG.lora_r), 10 * GIB)
    assert packs == Packs(1024, 0, gradient_checkpointing=True)
    assert "which may not be enough: set quantisation to 4bit" in reason


def test_what_the_configuration_gives_is_kept(seven_b: Architecture) -> None:
    given = TrainConfig("some/model", "starter@1", token_budget=3000, gradient_checkpointing=False)
    packs, _ = fitting(given, seven_b, Setup(16), 140 * GIB)
    assert (packs.token_budget, packs.gradient_checkpointing) == (3000, False)
    all_given = TrainConfig(
        "some/model", "a@1", token_budget=7, held_tokens=0, gradient_checkpointing=True
    )
    assert packs_here(all_given, GIB)[0] == Packs(7, 0, gradient_checkpointing=True)
    with pytest.raises(Refused, match="gradient_checkpointing must be true, false or null"):
        TrainConfig("some/model", "a@1", gradient_checkpointing="yes")  # type: ignore[arg-type]


def test_cpu_keeps_the_defaults() -> None:
    assert packs_here(CONFIG, None)[0] == Packs(4096, 8192, gradient_checkpointing=False)


def test_checkpointed_layers_keep_their_input(seven_b: Architecture) -> None:
    load = Load(4096, 0)
    whole = estimate(seven_b, load, Setup(16))
    less = estimate(seven_b, load, Setup(16, checkpointing=True))
    assert less.activations < whole.activations / 4
    assert less.base == whole.base


@pytest.mark.slow
def test_plan_says_what_it_chooses(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = make_run(token_budget=None, held_tokens=None)
    monkeypatch.setattr(plan, "free_memory", lambda device: 2 * GIB)
    found = plan.plan(run_dir)
    assert found["packs"]["held_tokens"] == 8192
    assert "At a time here: packs of 4096 tokens, 8192 held, no checkpointing: " in (
        plan.as_text(found)
    )


@pytest.mark.slow
def test_run_keeps_its_packs_when_it_resumes(make_run: MakeRun) -> None:
    run_dir = make_run(token_budget=None, held_tokens=None, gradient_checkpointing=None)
    asked: list[int] = []

    def choose(config: TrainConfig, devices: int) -> tuple[Packs, str]:
        asked.append(devices)
        return Packs(100, 50, gradient_checkpointing=True), "they fit"

    train(run_dir, choose_packs=choose)
    (start,) = events(run_dir, "start")
    assert start["packs"] == "they fit"
    manifest: dict[str, Any] = json.loads((run_dir / "adapter" / "manifest.json").read_text())
    config = manifest["train"]["config"]
    assert (config["token_budget"], config["gradient_checkpointing"]) == (100, True)
    for file in (run_dir / "adapter").iterdir():
        file.unlink()
    train(run_dir, choose_packs=choose)
    assert asked == [1]
    assert torch.is_grad_enabled()
