"""Sequence log-probabilities compared with the plain computation over all logits."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import CohereConfig, Gemma2Config, GraniteConfig

from tests.trainer.forward.test_attention import plainly
from trainer.backends import VARIABLE
from trainer.forward import head, logprobs
from trainer.forward.logprobs import (
    Row,
    batched_logprobs,
    packs,
    score,
    sequence_logprobs,
    shares_prefixes,
)
from trainer.models.loading import LoadedBase
from trainer.models.lora import Lora

ROWS: list[Row] = [
    ([5, 6, 7], [8, 9, 10, 11]),
    ([12], [13]),
    ([20, 21, 22, 23, 24], [25, 26]),
    ([30, 31], [32, 33, 34, 35, 36, 37, 38]),
]
SYSTEM = tuple(range(40, 60))
SHARING: list[Row] = [((*SYSTEM, *prompt), completion) for prompt, completion in ROWS]
OTHERS = [(9,), (8, 7, 6, 5, 4), (3, 2), (1, 2, 3)]


@pytest.fixture
def adapted(tiny: LoadedBase) -> Lora:
    """Attach an adapter that changes the output of the tiny model."""
    lora = Lora.attach(tiny.model, rank=4, alpha=8, seed=3)
    for parameter in lora.parameters().values():
        torch.nn.init.normal_(parameter, std=0.1)
    return lora


def test_rows_in_packs_equal_each_row_alone(tiny: LoadedBase) -> None:
    with torch.no_grad():
        expected = torch.stack([plainly(tiny.model, row) for row in ROWS])
    for budget in (1, 8, 1000):
        found = sequence_logprobs(tiny.model, ROWS, budget)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_values_are_returned_per_token(tiny: LoadedBase) -> None:
    prompt, completion = ROWS[0]
    values = batched_logprobs(tiny.model, ROWS, 1000)[0]
    with torch.no_grad():
        expected = [
            plainly(tiny.model, ([*prompt, *completion[:number]], completion[number : number + 1]))
            for number in range(len(completion))
        ]
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [3, 256])
@pytest.mark.parametrize("rows", [ROWS, SHARING], ids=["rows", "sharing"])
def test_gradient_equals_that_of_the_plain_computation(
    tiny: LoadedBase, adapted: Lora, monkeypatch: pytest.MonkeyPatch, chunk: int, rows: list[Row]
) -> None:
    monkeypatch.setattr(head, "CHUNK", chunk)
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (score(tiny.model, rows).logprobs.sums() * factors).sum().backward()
    parameters = adapted.parameters()
    found = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    tiny.model.zero_grad()
    (torch.stack([plainly(tiny.model, row) for row in rows]) * factors).sum().backward()
    assert len(found) == len(parameters)
    for name, parameter in parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_mismatched_completions_equal_separate_rows(tiny: LoadedBase, adapted: Lora) -> None:
    scored = score(tiny.model, SHARING, keep=True)
    found = scored.others(OTHERS)
    rows = [(prompt, other) for (prompt, _), other in zip(SHARING, OTHERS, strict=True)]
    torch.testing.assert_close(
        found.sums(), sequence_logprobs(tiny.model, rows, 1000), rtol=1e-5, atol=1e-5
    )
    assert not found.values.requires_grad
    assert scored.logprobs.values.requires_grad


def test_model_without_prefix_sharing_is_run_row_by_row(
    tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = score(tiny.model, SHARING, keep=True)
    expected, others = packed.logprobs.values, packed.others(OTHERS).values
    monkeypatch.setattr(logprobs, "_SHARES", {tiny.model: False})
    found = score(tiny.model, SHARING, keep=True)
    torch.testing.assert_close(found.logprobs.values, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.others(OTHERS).values, others, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fault", ["stateful", "foreign attention", "other results"])
def test_sharing_is_switched_off_where_it_would_not_be_exact(
    tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    assert shares_prefixes(tiny.model)
    logprobs._SHARES.clear()
    if fault == "stateful":
        monkeypatch.setattr(type(tiny.model), "_is_stateful", True)
    elif fault == "foreign attention":
        monkeypatch.setattr(type(tiny.model), "_supports_attention_backend", False)
    else:  # attention with an unsupported option
        monkeypatch.setenv(VARIABLE, "torch_reference")
        for layer in tiny.model.model.layers:
            layer.self_attn.scaling *= 3
            layer.self_attn.register_forward_pre_hook(scaling_is_own, with_kwargs=True)
    assert not shares_prefixes(tiny.model)


def scaling_is_own(module: Any, args: Any, given: dict[str, Any]) -> Any:
    """Attention whose own implementation differs from the one that replaces it."""
    factor = 1.0 if "layout" in given else 1 / 3
    module.scaling = factor * 3 * module.head_dim**-0.5
    return args, given


def test_packs_contain_every_row_once_and_keep_siblings_together() -> None:
    rows: list[Row] = [((*SYSTEM, n // 2), (n, n + 1)) for n in range(8)]
    found = packs(rows, 50)
    assert sorted(index for pack in found for index in pack) == list(range(8))
    for pack in found:
        assert {index ^ 1 for index in pack} == set(pack)
    # 23 tokens alone; a sibling adds 2, another question 3 and its sibling 2
    assert [len(pack) for pack in packs(rows, 25)] == [2, 2, 2, 2]
    assert [len(pack) for pack in packs(rows, 30)] == [4, 4]
    assert [len(pack) for pack in packs(rows, 1)] == [1] * 8


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(**SMALL, logit_scale=0.0625),
        GraniteConfig(**SMALL, logits_scaling=8.0),
        Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0),
    ],
    ids=lambda config: config.model_type,
)
def test_heads_of_other_architectures_are_applied(config: Any) -> None:
    torch.manual_seed(0)
    model = Auto.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        expected = torch.stack([plainly(model, row) for row in SHARING])
    found = sequence_logprobs(model, SHARING, 1000)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", [([], [1]), ([1], [])])
def test_row_without_prompt_or_completion_is_an_error(tiny: LoadedBase, row: Row) -> None:
    with pytest.raises(ValueError, match="at least one"):
        score(tiny.model, [row])
