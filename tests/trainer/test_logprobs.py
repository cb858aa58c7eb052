"""Sequence log-probabilities against the plain computation over all logits."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from trainer import logprobs
from trainer.logprobs import Row, sequence_logprobs, shared_prefix
from trainer.lora import Lora
from trainer.model import LoadedBase
from trainer.step import batched_logprobs

ROWS: list[Row] = [
    ([5, 6, 7], [8, 9, 10, 11]),
    ([12], [13]),
    ([20, 21, 22, 23, 24], [25, 26]),
    ([30, 31], [32, 33, 34, 35, 36, 37, 38]),
]


def plainly(model: Any, row: Row) -> torch.Tensor:
    """One row by itself, all logits, gathered: the definition."""
    prompt, completion = row
    ids = torch.tensor([[*prompt, *completion]])
    logits = model(ids).logits[0].float().log_softmax(-1)
    start = len(prompt) - 1
    return sum(
        (logits[start + offset, token] for offset, token in enumerate(completion)),
        torch.zeros(()),
    )


def test_padded_rows_equal_each_row_by_itself(tiny: LoadedBase) -> None:
    with torch.no_grad():
        expected = torch.stack([plainly(tiny.model, row) for row in ROWS])
        found = sequence_logprobs(tiny.model, ROWS)
        grouped = batched_logprobs(tiny.model, ROWS, token_budget=16)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grouped, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [3, 256])
def test_gradient_equals_that_of_the_plain_computation(
    tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(logprobs, "HEAD_CHUNK", chunk)
    lora = Lora.attach(tiny.model, rank=4, alpha=8, seed=3)
    for parameter in lora.parameters().values():
        torch.nn.init.normal_(parameter, std=0.1)
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0])

    (sequence_logprobs(tiny.model, ROWS) * factors).sum().backward()
    found = {name: p.grad.clone() for name, p in lora.parameters().items() if p.grad is not None}
    tiny.model.zero_grad()
    (torch.stack([plainly(tiny.model, row) for row in ROWS]) * factors).sum().backward()

    assert len(found) == len(lora.parameters())
    for name, parameter in lora.parameters().items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)


SYSTEM = tuple(range(40, 60))
SHARING: list[Row] = [((*SYSTEM, *prompt), completion) for prompt, completion in ROWS]


def test_prefix_that_all_prompts_share_is_found() -> None:
    prompts = [prompt for prompt, _ in SHARING]
    assert shared_prefix(None, prompts) == 20
    assert shared_prefix(None, prompts[:1]) == 0
    assert shared_prefix(None, [SYSTEM, (*SYSTEM, 5)]) == 19  # the last token stays with its row
    assert shared_prefix(None, [SYSTEM[:5], SYSTEM[:5]]) == 0  # too short to be worth it


def test_rows_with_a_shared_prefix_equal_each_row_by_itself(tiny: LoadedBase) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8, seed=3)
    for parameter in lora.parameters().values():
        torch.nn.init.normal_(parameter, std=0.1)
    found = sequence_logprobs(tiny.model, SHARING)
    found.sum().backward()
    gradients = {
        name: p.grad.clone() for name, p in lora.parameters().items() if p.grad is not None
    }
    tiny.model.zero_grad()
    expected = torch.stack([plainly(tiny.model, row) for row in SHARING])
    expected.sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(lora.parameters())
    for name, parameter in lora.parameters().items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-4)


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        CohereConfig(**SMALL, logit_scale=0.0625),
        GraniteConfig(**SMALL, logits_scaling=8.0),
        Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("rows", [ROWS, SHARING], ids=["rows", "sharing"])
def test_other_architectures_keep_their_definition(config: Any, rows: list[Row]) -> None:
    torch.manual_seed(0)
    model = Auto.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        expected = torch.stack([plainly(model, row) for row in rows])
        found = sequence_logprobs(model, rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", [([], [1]), ([1], [])])
def test_row_without_prompt_or_completion_is_an_error(tiny: LoadedBase, row: Row) -> None:
    with pytest.raises(ValueError, match="at least one"):
        sequence_logprobs(tiny.model, [row])
