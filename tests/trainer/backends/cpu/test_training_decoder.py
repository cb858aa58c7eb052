"""The trainer's own decoder compared with transformers' layers."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM as Auto
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from tests.trainer.conftest import needs_compiled
from tests.trainer.forward.test_attention import OTHERS, ROWS, SMALL
from trainer.backends.cpu import training_decoder
from trainer.forward.logprobs import score
from trainer.models.lora import Lora

pytestmark = needs_compiled

BUILT_ALIKE = [
    LlamaConfig(**SMALL, attention_bias=True),
    MistralConfig(**SMALL, sliding_window=8),
    Qwen2Config(**SMALL),
    Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=1),
]
FACTORS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, -1.0])


def adapted(config: Any, dtype: torch.dtype) -> tuple[Any, Lora]:
    """Return a model and an adapter with weights large enough to affect the output."""
    torch.manual_seed(0)
    model = Auto.from_config(config, dtype=dtype).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    lora = Lora.attach(model, rank=4, alpha=8)
    for parameter in lora.parameters().values():
        nn.init.normal_(parameter, std=0.2)
    return model, lora


def scored(model: Any, lora: Lora) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Return log-probabilities of rows and mismatched completions, and the adapter's gradients."""
    found = score(model, ROWS, keep=True)
    loss = (found.logprobs.sums() * FACTORS).sum()
    slopes = torch.autograd.grad(loss, list(lora.parameters().values()))
    return found.logprobs.values.detach(), found.others(OTHERS).values, list(slopes)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the distance of two tensors relative to the norm of the second."""
    difference: torch.Tensor = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm())


@pytest.mark.parametrize("config", BUILT_ALIKE, ids=["llama", "mistral", "qwen2", "sliding qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_layers_equal_transformers_layers(
    config: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lora = adapted(config, dtype)
    assert training_decoder.implements(model.get_decoder())
    found = scored(model, lora)
    monkeypatch.setattr(training_decoder, "BUILDS", ())
    assert not training_decoder.implements(model.get_decoder())
    expected = scored(model, lora)
    # in bf16 neither is exact: the base's own values differ as much from fp32
    bound = 1e-5 if dtype == torch.float32 else 0.04
    assert apart(found[0], expected[0]) < bound
    assert apart(found[1], expected[1]) < bound
    assert len(found[2]) == 2 * 14
    for slope, other in zip(found[2], expected[2], strict=True):
        assert apart(slope, other) < (1e-5 if dtype == torch.float32 else 0.15)


def test_other_layers_use_transformers() -> None:
    model, _ = adapted(LlamaConfig(**SMALL), torch.float32)
    own = model.get_decoder()
    assert training_decoder.implements(own)
    own.norm.weight.requires_grad_(True)
    assert not training_decoder.implements(own), "a trained norm needs a gradient"
    own.norm.weight.requires_grad_(False)
    own.layers[1].mlp.act_fn = nn.GELU()
    assert not training_decoder.implements(own)
    own.layers[1].mlp.act_fn = nn.SiLU()
    assert training_decoder.implements(own)
    own.layers[1].__class__ = type("Sharded", (type(own.layers[1]),), {})
    assert not training_decoder.implements(own)
