"""Compiled code is reused by the next process, and never by another version."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import needs_compiled
from trainer.backends.cpu import compiled_code

pytestmark = [needs_compiled, pytest.mark.slow]

PACKAGE = Path(compiled_code.__file__).parent
ROOT = PACKAGE.parents[2]
#: Compiles one small function and prints the number of cache hits of numba.
COMPILE = """
import numpy as np
from trainer.backends.cpu import fused
row = np.zeros(3, np.float32)
fused._clear(row)
print(sum(fused._clear.stats.cache_hits.values()))
"""

#: Trains one step of the tiny model and serves a token; prints how many functions were compiled
#: and how many were loaded from the cache.
USE = """
import sys, pathlib
from tests.tiny import make_tiny_model
from trainer.backends.cpu import fused
from trainer.backends.cpu import loops
from trainer.backends.cpu.serving_decoder import LlamaDecoder
from trainer.engine.loading import load_served
from trainer.forward.logprobs import score
from trainer.models.loading import load_base
tiny = str(make_tiny_model(pathlib.Path(sys.argv[1])))
base = load_base(tiny, device="cpu")
base.model.get_input_embeddings().weight.requires_grad_()
rows = [(tuple(range(100)), (1, 2, 3)), (tuple(range(90)), (4, 5))]
score(base.model, rows).logprobs.sums().sum().backward()
LlamaDecoder(load_served(tiny, device="cpu").model)
used = [*vars(fused).values(), loops.forward]
stats = [one.stats for one in used if hasattr(one, "stats")]
print(sum(len(one.cache_misses) for one in stats), sum(len(one.cache_hits) for one in stats))
"""


def hits(**env: str) -> int:
    """Return how often a new process finds the function in the cache."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.long
def test_next_process_loads_compiled_code_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROSPECT_CACHE_DIR", str(tmp_path))
    assert not compiled_code.is_compiled("fused._clear")
    assert hits() == 0
    assert compiled_code.is_compiled("fused._clear")
    assert not compiled_code.is_compiled("fused.gate_forward")
    assert hits() == 1


@pytest.mark.long
def test_each_process_compiles_without_a_writable_directory() -> None:
    assert hits(PROSPECT_CACHE_DIR="/proc/no-such-place") == 0


def compiles(path: Path) -> bool:
    """Return whether functions of this file are compiled."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import) and any(one.name == "numba" for one in node.names):
            return True
        if isinstance(node, ast.ImportFrom):
            names = {one.name for one in node.names}
            if node.module == "trainer.backends.cpu.fused" and names & {"compiled", "inlined"}:
                return True
            if node.module and node.module.split(".")[0] == "numba":
                return True
    return False


def test_key_covers_every_file_with_compiled_functions() -> None:
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if compiles(path)}
    assert found == set(compiled_code.KERNEL_FILES)


def test_change_of_a_file_gives_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in compiled_code.KERNEL_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(compiled_code, "__file__", str(tmp_path / "compiled_code.py"))
    seen = {compiled_code.directory()}
    for name in compiled_code.KERNEL_FILES:
        (tmp_path / name).write_text("two")
        seen.add(compiled_code.directory())
    assert len(seen) == 1 + len(compiled_code.KERNEL_FILES)


def test_directories_of_old_versions_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROSPECT_CACHE_DIR", str(tmp_path))
    for age in range(compiled_code.OTHERS_KEPT + 2):
        old = tmp_path / "compiled" / f"old-{age}"
        old.mkdir(parents=True)
        os.utime(old, (1_000_000 - age, 1_000_000 - age))
    current = compiled_code.make_directory()
    assert current is not None
    kept = {path.name for path in current.parent.iterdir()}
    assert kept == {current.name, *(f"old-{age}" for age in range(compiled_code.OTHERS_KEPT))}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)  # about half a minute of compiling on an idle machine
def test_training_and_serving_compile_nothing_after_compiling_ahead(tmp_path: Path) -> None:
    env = {**os.environ, "PROSPECT_CACHE_DIR": str(tmp_path / "cache")}
    ahead = "from trainer.compile_ahead import compile_ahead; compile_ahead(print)"

    def run(code: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "tiny")]
        return subprocess.run(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    assert len(run(ahead).splitlines()) == 2
    compiled, found = map(int, run(USE).split())
    assert compiled == 0
    assert found >= 9
