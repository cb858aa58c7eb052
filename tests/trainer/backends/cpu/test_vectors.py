"""The compiled products of the engine's decoder compared with exact ones."""

import numpy as np
import pytest
import torch
from numba import njit

from tests.trainer.conftest import needs_compiled
from trainer.backends.cpu import vectors
from trainer.backends.cpu.fused import Array, view
from trainer.backends.cpu.phases import tile_rows
from trainer.backends.cpu.vectors import PAIRS, TILE, pack

pytestmark = needs_compiled

#: (inputs, weights) types: each pair has its own kernel.
KINDS = [(torch.float32, torch.float32), (torch.float32, torch.bfloat16)]
if PAIRS:  # only where the processor supports them
    KINDS.append((torch.bfloat16, torch.bfloat16))


@pytest.mark.parametrize(("given", "stored"), KINDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 15, 20])
def test_product_of_any_number_of_rows_is_exact(
    given: torch.dtype, stored: torch.dtype, rows: int
) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows + 2, 38, generator=generator).to(given)
    weight = torch.randn(70, 38, generator=generator).to(stored)
    before = torch.randn(rows + 2, 3 * TILE, generator=generator)
    packed = pack(weight)
    assert packed.shape == (3, TILE * 38)
    expected = (x.double() @ weight.double().T)[1 : rows + 1]
    for adds in (False, True):
        y = before.clone()
        for tile in range(3):
            tile_rows(view(x), 1, rows + 1, view(packed)[tile], view(y), tile * TILE, adds)
        wanted = expected + (before[1 : rows + 1, :70].double() if adds else 0)
        torch.testing.assert_close(y[1 : rows + 1, :70].double(), wanted, rtol=1e-5, atol=1e-4)
        assert torch.equal(y[[0, -1]], before[[0, -1]]), "other rows are unchanged"
        filled = before[1 : rows + 1, 70:] if adds else torch.zeros(rows, 3 * TILE - 70)
        assert torch.equal(y[1 : rows + 1, 70:], filled), "a tile is padded with zeros"


def test_odd_number_of_inputs_is_padded() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 7, generator=generator)
    x = torch.zeros(2, 8)
    x[:, :7] = torch.randn(2, 7, generator=generator)
    y = torch.empty(2, TILE)
    tile_rows(view(x), 0, 2, view(pack(weight))[0], view(y), 0, False)
    torch.testing.assert_close(y[:, :5], x[:, :7] @ weight.T)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_scores_and_sums_of_attention_are_exact(stored: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(9, 80, generator=generator).to(stored)
    query, shares = torch.randn(80, generator=generator), torch.rand(9, generator=generator)
    scores, sums = torch.full((9,), 7.0), torch.full((80,), 7.0)
    attention(view(query), view(keys), view(shares), view(scores), view(sums))
    exact = (keys.double() @ query.double()) * 0.25
    torch.testing.assert_close(scores[2:7].double(), exact[2:7], rtol=1e-5, atol=1e-5)
    assert scores[[0, 1, 7, 8]].tolist() == [7.0] * 4
    torch.testing.assert_close(
        sums.double(), shares[2:7].double() @ keys[2:7].double(), rtol=1e-5, atol=1e-5
    )


@njit
def attention(query: Array, keys: Array, shares: Array, scores: Array, sums: Array) -> None:
    vectors.four_dots(query, keys, 2, np.float32(0.25), scores)
    vectors.one_dot(query, keys, 6, np.float32(0.25), scores)
    vectors.wide_mix(shares, keys, 2, 7, 0, sums)
    vectors.narrow_mix(shares, keys, 2, 7, 64, sums)
