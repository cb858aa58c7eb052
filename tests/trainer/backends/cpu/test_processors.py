"""The engine's compiled step for processors other than the one of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit

from tests.tiny import make_tiny_model
from tests.trainer.conftest import needs_compiled
from trainer.backends.cpu import phases, vectors
from trainer.backends.cpu.fused import view
from trainer.backends.cpu.serving_decoder import LlamaDecoder
from trainer.backends.cpu.vectors import TILE, pack
from trainer.models.loading import load_base

pytestmark = [needs_compiled, pytest.mark.slow]

ROOT = Path(__file__).parents[4]
PROMPTS = [[5, 9, 80, 33, 17], [7], [4, 4, 90, 250, 61, 12, 33, 7, 8]]

#: Compiles for a processor without vector extensions, on a machine that reports arm64.
ELSEWHERE = """
import platform, re, sys
platform.machine = lambda: "aarch64"
import numpy as np
from trainer.backends.cpu import loops, vectors
from trainer.backends.cpu.serving_decoder import LlamaDecoder
from trainer.models.loading import load_base
assert not vectors.PAIRS and not vectors.WIDE_REGISTERS
decoder = LlamaDecoder(load_base(sys.argv[1], dtype="bfloat16", device="cpu").model)
prompts = eval(sys.argv[2])
cache = decoder.cache(len(prompts), max(map(len, prompts)))
scores = decoder(prompts, [0] * len(prompts), [0] * len(prompts), cache)
np.save(sys.argv[3], scores.float().numpy())
code = "".join(loops.forward.inspect_llvm().values())
print(*sorted(set(re.findall(r"llvm[.]x86[.][a-z0-9.]*", code))))
"""


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 4, 7, 8, 13, 20])
def test_products_are_equal_with_many_and_few_registers(
    wide: bool, stored: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "WIDE_REGISTERS", wide)
    tile_rows = njit(phases.tile_rows.py_func)  # compiled with the value set here
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 38, generator=generator)
    weight = torch.randn(TILE, 38, generator=generator).to(stored)
    y = torch.randn(rows + 1, TILE, generator=generator)
    before = y.clone()
    tile_rows(view(x), 0, rows, view(pack(weight))[0], view(y), 0, True)
    expected = before[:rows].double() + x.double() @ weight.double().T
    torch.testing.assert_close(y[:rows].double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(y[rows], before[rows]), "the row after the last is unchanged"
    once = y.clone()
    y.copy_(before)
    for row in range(rows):
        tile_rows(view(x), row, row + 1, view(pack(weight))[0], view(y), 0, True)
    assert torch.equal(y, once), "a row alone must have the same bits"


@pytest.mark.long
@pytest.mark.slow
def test_no_x86_instruction_is_generated_for_another_architecture(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(model), repr(PROMPTS), str(tmp_path / "scores.npy")],
        cwd=ROOT,
        env={
            **os.environ,
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CPU_FEATURES": "",
            "PROSPECT_CACHE_DIR": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # LLVM itself lowers numba's reference counting to this one when it generates code for x86
    assert set(done.stdout.split()) <= {"llvm.x86.atomic.sub.cc.i64"}
    decoder = LlamaDecoder(load_base(str(model), dtype="bfloat16", device="cpu").model)
    cache = decoder.cache(len(PROMPTS), max(map(len, PROMPTS)))
    here = decoder(PROMPTS, [0] * len(PROMPTS), [0] * len(PROMPTS), cache).float()
    away = 0.1 if vectors.PAIRS else 0.05
    there = torch.from_numpy(np.load(tmp_path / "scores.npy"))
    torch.testing.assert_close(there, here, rtol=0, atol=away)
