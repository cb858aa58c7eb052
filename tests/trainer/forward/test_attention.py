"""Attention over packed forests compared with single rows, for the supported architectures."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from trainer.backends import VARIABLE, backend_for
from trainer.forward import attention
from trainer.forward.logprobs import Row, score, shares_prefixes

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = [
    LlamaConfig(**SMALL),
    MistralConfig(**SMALL, sliding_window=8),
    MixtralConfig(**SMALL, num_local_experts=4, sliding_window=8),
    Qwen2Config(**SMALL),
    Qwen3Config(**SMALL, head_dim=8),
    Gemma2Config(
        **SMALL,
        head_dim=8,
        sliding_window=8,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=3.0,
    ),
    Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=8),
    Phi3Config(**SMALL, sliding_window=9),
    GPT2Config(
        vocab_size=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
    ),
]
SYSTEM = tuple(range(1, 21))
QUESTION = (*SYSTEM, 20, 21, 22, 23, 24)
#: a system prompt for most, one question with three answers, and one unrelated row
ROWS: list[Row] = [
    ((*SYSTEM, 5, 6, 7), (8, 9, 10, 11)),
    ((*SYSTEM, 12), (13,)),
    (QUESTION, tuple(range(20, 50))),
    (QUESTION, (*range(20, 45), 3)),
    (QUESTION, (9, 9)),
    ((30, 31), (32, 33, 34)),
]
OTHERS = [(3, 4, 5, 6), (7,), (8, 9), tuple(range(10, 30)), (1, 2), (4, 5, 6)]
FACTORS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, -1.0])


def plainly(model: Any, row: Row) -> torch.Tensor:
    """Run one row alone, through the model's own attention: the definition."""
    prompt, completion = row
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0].float().log_softmax(-1)
    wanted = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return logits[list(wanted), list(completion)].sum()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of all layers; the head and the embeddings are frozen in training."""
    found = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if (parameter.grad is not None and "layers" in name) or ".h." in name
    }
    model.zero_grad()
    return found


@pytest.fixture(params=["default", "torch_reference", "cuda"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use the CPU's backend, the reference that accelerators use, and CUDA's: FlexAttention where
    no gradient is asked for."""
    if request.param != "default":
        monkeypatch.setenv(VARIABLE, request.param)
    return str(request.param)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_packed_rows_equal_each_row_alone(config: Any, backend: str) -> None:
    torch.manual_seed(0)
    model = Auto.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert shares_prefixes(model)

    expected = torch.stack([plainly(model, row) for row in ROWS])
    (expected * FACTORS).sum().backward()
    slopes = gradients(model)
    scored = score(model, ROWS, keep=True)
    found = scored.logprobs.sums()
    (found * FACTORS).sum().backward()

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert len(slopes) > 10
    for name, slope in gradients(model).items():
        torch.testing.assert_close(
            slope, slopes[name], rtol=1e-4, atol=1e-5 * slopes[name].abs().max()
        )

    # another completion for each prompt, from the cached keys and values
    rows = [(prompt, other) for (prompt, _), other in zip(ROWS, OTHERS, strict=True)]
    with torch.no_grad():
        mismatched = torch.stack([plainly(model, row) for row in rows])
    torch.testing.assert_close(scored.others(OTHERS).sums(), mismatched, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        bare = score(model, ROWS, keep=True)
        torch.testing.assert_close(bare.logprobs.sums(), expected, rtol=1e-5, atol=1e-4)
    assert backend_for("cpu").new_warnings() == []


def test_attention_of_the_model_is_restored_afterwards() -> None:
    model = Auto.from_config(LlamaConfig(**SMALL)).eval()
    before = model.config._attn_implementation
    score(model, ROWS)
    assert model.config._attn_implementation == before != attention.NAME
