"""FlexAttention over packed forests compared with the reference, on the CPU: its eager kernel, and
its mask in the plain formula, with gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.backends.base import Forest, KeysValues, Layout, Rules
from trainer.backends.cuda import CudaBackend
from trainer.backends.cuda.forest_attention import attend, supports, tree_of
from trainer.backends.torch_reference import TorchReference
from trainer.forward.segments import branches, forest

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

SYSTEM = tuple(range(1, 21))
QUESTION = (*SYSTEM, *range(30, 50))
#: three levels of sharing, a row that is another's beginning, an equal row and an unrelated one
ROWS = [
    (*QUESTION, *range(60, 90)),
    (*QUESTION, 91, 92),
    QUESTION,
    (*SYSTEM, 93, 94, 95),
    (*SYSTEM, 93, 94, 95),
    tuple(range(100, 117)),
]
RULES = [
    Rules(0.3, None, None),
    Rules(0.3, 7, None),
    Rules(0.3, None, 2.0),
    Rules(0.3, 23, 2.0),
]


def states(length: int, *, seed: int = 0, grad: bool = False) -> list[Tensor]:
    """Return queries (4, T, 8), keys and values (2, T, 8)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, length, 8), (2, length, 8), (2, length, 8)]
    return [torch.randn(s, generator=generator).requires_grad_(grad) for s in shapes]


def continued(tree: Forest) -> tuple[Forest, KeysValues]:
    """Return rows that go on after beginnings of others, and what those have left behind."""
    more = branches(
        tree,
        [(0, 40), (1, 30), (3, 23), (5, 9)],
        [(7, 8, 9), tuple(range(20)), (5,), (6, 7)],
    )
    _, key, value = states(tree.length, seed=1)
    return more, KeysValues({0: (key, value)})


def layouts() -> list[Layout]:
    """Return a forest, and one that continues it."""
    tree = forest(ROWS)
    more, kept = continued(tree)
    return [Layout(tree), Layout(more, stored=kept)]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("number", [0, 1])
def test_eager_kernel_equals_the_reference(number: int, rules: Rules) -> None:
    layout = layouts()[number]
    found = attend(*states(layout.forest.length), layout, _stored(layout), rules)
    expected = TorchReference().forest_attention(
        *states(layout.forest.length), layouts()[number], 0, rules
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("number", [0, 1])
def test_mask_gives_the_gradients_of_the_reference(number: int, rules: Rules) -> None:
    layout = layouts()[number]
    given = states(layout.forest.length, grad=True)
    expected = TorchReference().forest_attention(*given, layout, 0, rules)
    slopes = torch.autograd.grad((expected * expected.sin()).sum(), given)
    found = by_formula(*given, layout, rules)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    same = torch.autograd.grad((found * found.sin()).sum(), given)
    for one, other in zip(same, slopes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def by_formula(query: Tensor, key: Tensor, value: Tensor, layout: Layout, rules: Rules) -> Tensor:
    """Return softmax attention under FlexAttention's mask, all scores held."""
    stored = _stored(layout)
    if stored is not None:
        key, value = torch.cat([stored[0], key], 1), torch.cat([stored[1], value], 1)
    key, value = key.repeat_interleave(2, 0), value.repeat_interleave(2, 0)
    keys = key.shape[1]
    tree = tree_of(layout.forest, keys - layout.forest.length, torch.device("cpu"))
    rows, columns = torch.arange(query.shape[1])[:, None], torch.arange(keys)[None]
    seen = tree.sees(rules.window)(0, 0, rows, columns)
    scores = query @ key.transpose(1, 2) * rules.scale
    if rules.softcap is not None:
        scores = rules.softcap * torch.tanh(scores / rules.softcap)
    return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value).transpose(0, 1)


def _stored(layout: Layout) -> tuple[Tensor, Tensor] | None:
    return None if layout.stored is None else layout.stored.layers[0]


def test_each_mask_is_made_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(*given: Any, **named: Any) -> Any:
        made.append(1)
        return original(*given, **named)

    from trainer.backends.cuda import forest_attention as module

    original = module.create_block_mask
    monkeypatch.setattr(module, "create_block_mask", counted)
    layout = layouts()[0]
    for _ in range(3):
        for rules in (RULES[0], RULES[1]):
            attend(*states(layout.forest.length), layout, None, rules)
    assert len(made) == 2


def test_gradients_on_a_cpu_are_the_references() -> None:
    layout = layouts()[0]
    given = states(layout.forest.length, grad=True)
    assert not supports(*given)
    found = CudaBackend().forest_attention(*given, layout, 0, RULES[0])
    expected = TorchReference().forest_attention(*given, layout, 0, RULES[0])
    assert torch.equal(found, expected)


def test_failing_kernel_is_done_without_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Tensor:
        raise RuntimeError("no triton here\nmore")

    monkeypatch.setattr("trainer.backends.cuda.forest_attention.attend", broken)
    backend, layout = CudaBackend(), Layout(forest(ROWS), keep=KeysValues())
    given = states(layout.forest.length)
    expected = TorchReference().forest_attention(*given, layouts()[0], 0, RULES[0])
    for _ in range(2):
        assert torch.equal(backend.forest_attention(*given, layout, 0, RULES[0]), expected)
    assert layout.keep is not None
    assert torch.equal(layout.keep.layers[0][0], given[1])
    (said,) = backend.new_warnings()
    assert "FlexAttention does not work here (no triton here)" in said
    assert backend.new_warnings() == []
