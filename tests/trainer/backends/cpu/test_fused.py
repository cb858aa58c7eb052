"""Compiled kernels compared with the torch operations that they replace."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.trainer.conftest import needs_compiled
from trainer.backends.cpu import fused
from trainer.backends.cpu.fused import view
from trainer.forward.head import token_logprobs

pytestmark = needs_compiled

TYPES = [torch.float32, torch.bfloat16]
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [8, 50])
def test_norm_and_its_gradient_equal_torch(dtype: torch.dtype, width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    h, delta, d_total, d_y = torch.randn(4, 7, width, generator=generator).to(dtype)
    # halfway between two bf16 numbers: rounded to even, down here and up there
    h[0, :2] = torch.tensor([1.0, 1 + 2**-7])
    delta[0, :2] = 2**-8
    weight = torch.rand(width, generator=generator).to(dtype)
    total, y, d_h = torch.empty_like(h), torch.empty_like(h), torch.empty_like(h)
    scales = torch.empty(7)
    fused.norm_forward(*map(view, (h, delta, weight)), 1e-5, *map(view, (total, y, scales)))
    fused.norm_backward(*map(view, (d_y, d_total, total, weight, scales, d_h)))

    assert torch.equal(total, h + delta)
    exact = total.double().requires_grad_()
    normed = exact * (exact.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    ((normed * d_y.double()).sum() + (exact * d_total.double()).sum()).backward()
    assert exact.grad is not None
    torch.testing.assert_close(
        y.double(), normed.detach(), rtol=ROUNDING[dtype], atol=ROUNDING[dtype]
    )
    torch.testing.assert_close(
        d_h.double(), exact.grad, rtol=ROUNDING[dtype], atol=4 * ROUNDING[dtype]
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_gate_and_its_gradient_equal_torch(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    gate, up, d_y = (4 * torch.randn(3, 5, 70, generator=generator)).to(dtype)
    gate[0, :4] = torch.tensor([-200.0, -60.0, 60.0, 200.0])
    y, d_gate, d_up = (torch.empty_like(gate) for _ in range(3))
    fused.gate_forward(view(gate), view(up), view(y))
    fused.gate_backward(*map(view, (d_y, gate, up, d_gate, d_up)))
    exact = [part.double().requires_grad_() for part in (gate, up)]
    expected = F.silu(exact[0]) * exact[1]
    slopes = torch.autograd.grad(expected, exact, d_y.double())
    for found, other in zip((y, d_gate, d_up), (expected.detach(), *slopes), strict=True):
        torch.testing.assert_close(
            found.double(), other, rtol=ROUNDING[dtype], atol=ROUNDING[dtype]
        )


@pytest.mark.parametrize("dtype", TYPES)
def test_logprobs_of_extreme_logits_equal_torch(dtype: torch.dtype) -> None:
    logits = torch.tensor([[90.0, -90.0, 3.0], [1e30, 0.0, -1e30], [-5.0, -5.0, -5.0]]).to(dtype)
    targets = torch.tensor([1, 0, 2])
    expected = logits.double().log_softmax(-1)[torch.arange(3), targets]
    slopes = F.one_hot(targets, 3).double() - logits.double().softmax(-1)
    found = torch.empty(3)
    fused.logprobs_of(view(logits), targets.numpy(), view(found), True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.double(), slopes, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
def test_nan_is_propagated(dtype: torch.dtype) -> None:
    """A diverged run must see NaN, from whichever input it comes."""
    for nan in (math.nan, -math.nan):
        broken = torch.ones(2, 40, dtype=dtype)
        broken[0, 7] = nan
        ones, total, y = torch.ones_like(broken), torch.empty_like(broken), torch.empty_like(broken)
        scales = torch.empty(2)
        fused.norm_forward(
            *map(view, (broken, ones, ones[0])), 1e-5, *map(view, (total, y, scales))
        )
        assert y[0].isnan().all()
        assert y[1].isfinite().all()
        fused.gate_forward(view(broken), view(ones), view(y))
        assert y.isnan().nonzero().tolist() == [[0, 7]]
        found = token_logprobs(lambda hidden: hidden * 1.0, broken, torch.tensor([3, 3]))
        assert found.isnan().tolist() == [True, False]


def test_exponentials_are_accurate_to_the_last_digits() -> None:
    gate = torch.linspace(-80, 80, 20_001).view(1, -1)
    y = torch.empty_like(gate)
    fused.gate_forward(view(gate), view(torch.ones_like(gate)), view(y))
    torch.testing.assert_close(
        y.double(), F.silu(gate.double()), rtol=4e-7, atol=0, check_dtype=False
    )


def test_types_without_kernels_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        view(torch.ones(2, dtype=torch.float64))
