"""The CUDA backend's attention and its gradients compared with the reference on the device."""

import pytest
import torch
from torch import Tensor

from tests.gpu.device import DEVICE, apart, on_device
from tests.trainer.backends.cuda.test_forest_attention import ROWS, RULES, continued
from trainer.backends.base import KeysValues, Layout, Rules
from trainer.backends.cuda import CudaBackend
from trainer.backends.torch_reference import TorchReference
from trainer.forward.segments import forest

pytestmark = on_device

#: Largest relative distance from the reference in float32.
BOUNDS = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def states(length: int, dtype: torch.dtype, *, seed: int = 0) -> list[Tensor]:
    """Return queries (4, T, 64), keys and values (2, T, 64), rounded to the type."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, length, 64), (2, length, 64), (2, length, 64)]
    return [torch.randn(s, generator=generator).to(DEVICE, dtype) for s in shapes]


def layout(*, stored: bool, dtype: torch.dtype) -> Layout:
    """Return a forest, or one that continues it and refers to its keys and values."""
    tree = forest(ROWS)
    if not stored:
        return Layout(tree)
    more, _ = continued(tree)
    _, key, value = states(tree.length, dtype, seed=1)
    return Layout(more, stored=KeysValues({0: (key, value)}))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rules"),
    [
        *((torch.bfloat16, rules) for rules in RULES),
        (torch.float16, RULES[-1]),
        (torch.float32, RULES[-1]),
    ],
)
def test_attention_and_gradients_equal_the_reference(
    dtype: torch.dtype, rules: Rules, *, stored: bool
) -> None:
    backend = CudaBackend()
    length = layout(stored=stored, dtype=dtype).forest.length
    found, slopes = attended(backend, states(length, dtype), stored, dtype, rules)
    given = [state.float() for state in states(length, dtype)]
    expected, wanted = attended(TorchReference(), given, stored, torch.float32, rules)
    assert backend.new_warnings() == []  # the kernels were used
    assert apart(found, expected) < BOUNDS[dtype]
    for slope, true in zip(slopes, wanted, strict=True):
        assert apart(slope, true) < 2 * BOUNDS[dtype]


def attended(
    backend: TorchReference, given: list[Tensor], stored: bool, dtype: torch.dtype, rules: Rules
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return attention and the gradients of queries, keys and values."""
    for state in given:
        state.requires_grad_()
    found = backend.forest_attention(*given, layout(stored=stored, dtype=dtype), 0, rules)
    weights = torch.linspace(-1, 1, found.numel(), device=DEVICE).view_as(found)
    return found.detach(), torch.autograd.grad((found.float() * weights).sum(), given)
