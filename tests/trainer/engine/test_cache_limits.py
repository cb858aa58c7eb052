"""How many keys and values a device may hold follows from its free memory and the model's size."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, Qwen2Config

from trainer.engine import cache_limits as module
from trainer.engine.batch import Batch
from trainer.engine.cache_limits import HOST_BATCH, HOST_PREFIXES, cache_limits, position_bytes

GB = 2**30
SMALL = LlamaConfig(  # SmolLM2-135M
    hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3
)
LARGE = LlamaConfig(  # Llama 2 7B: every head has its own keys and values
    hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32
)
GROUPED = Qwen2Config(  # Qwen 2.5 7B
    hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4
)


def model(config: Any, device: str) -> Any:
    return SimpleNamespace(config=config, device=torch.device(device), dtype=torch.bfloat16)


def test_bytes_of_a_position_are_those_of_the_model() -> None:
    assert position_bytes(SMALL, torch.bfloat16) == 2 * 30 * 3 * 64 * 2
    assert position_bytes(LARGE, torch.bfloat16) == 512 * 1024
    assert position_bytes(GROUPED, torch.bfloat16) == 56 * 1024
    assert position_bytes(GPT2Config(n_layer=12, n_head=12, n_embd=768), torch.float32) == 73_728


@pytest.mark.parametrize("config", [SMALL, LARGE, GROUPED], ids=["135M", "7B", "7B grouped"])
@pytest.mark.parametrize("free", [2 * GB, 10 * GB, 60 * GB])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_caches_fit_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, config: Any, free: int, device: str
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    found = cache_limits(model(config, device))
    size = position_bytes(config, torch.bfloat16)
    assert 0 < (found.batch + found.prefixes) * size <= 0.7 * free


def test_gpu_holds_as_much_as_it_has_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 60 * GB)
    assert cache_limits(model(LARGE, "cuda")).batch == 61_440
    assert cache_limits(model(SMALL, "cuda")).batch > 10 * HOST_BATCH
    assert cache_limits(model(SMALL, "cpu")).batch == HOST_BATCH


def test_unknown_memory_leaves_the_limits_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: None)
    found = cache_limits(model(LARGE, "mps"))
    assert (found.batch, found.prefixes) == (HOST_BATCH, HOST_PREFIXES)


def test_one_row_runs_however_little_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    assert cache_limits(model(LARGE, "cuda")).batch == 1


def test_batch_takes_the_limit_of_its_model(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    size = position_bytes(tiny.model.config, torch.float32)
    monkeypatch.setattr(module, "free_memory", lambda device: 1000 * size)
    assert Batch(tiny.model).positions == 500
