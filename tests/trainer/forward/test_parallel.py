"""Packs in parallel: the same results in the same order."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engines import PATIENCE
from tests.trainer.conftest import MakeRun
from tests.trainer.training.test_step import EXAMPLE_STEP, Bench
from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.forward import logprobs, parallel
from trainer.forward.logprobs import Row, packs
from trainer.forward.parallel import parallel_map
from trainer.models.loading import LoadedBase
from trainer.training import step, train
from trainer.training.step import Budget

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_several_threads(two_threads: None) -> None:
    met = threading.Barrier(2, timeout=PATIENCE)  # both must run at the same time

    def one(item: int) -> tuple[int, int, bool]:
        met.wait()
        time.sleep(0.05 * (item % 2 == 0))
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        found = list(parallel_map(one, range(4), concurrency=2))
    assert found == [(item, 1, False) for item in range(4)]
    assert torch.get_num_threads() == 2


def test_an_error_is_raised_when_running_items_are_done(two_threads: None) -> None:
    done: list[int] = []

    def one(item: int) -> int:
        if item == 0:
            raise ValueError("broken")
        time.sleep(0.1)
        done.append(item)
        return item

    with pytest.raises(ValueError, match="broken"):
        list(parallel_map(one, range(20), concurrency=2))
    assert done, "running items were not waited for"
    assert len(done) < 19, "items were started after the error"


def test_number_of_concurrent_packs_depends_on_threads_and_tokens(two_threads: None) -> None:
    assert parallel.concurrent_packs(CPU, 4096) == 2  # at most the number of threads
    assert parallel.concurrent_packs(CPU, 1024) == 2  # two packs of 512 tokens
    assert parallel.concurrent_packs(CPU, 1023) == 1
    assert parallel.concurrent_packs(CPU, 100) == 1  # at least one
    assert parallel.concurrent_packs(torch.device("cuda"), 4096) == 1
    torch.set_num_threads(8)  # reset by the fixture
    assert parallel.concurrent_packs(CPU, 4096) == 8
    assert parallel.concurrent_packs(CPU, 2047) == 3


def test_concurrent_packs_are_about_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "MIN_PACK_TOKENS", 10)
    prompts = [tuple(range(100 * n, 100 * n + 20)) for n in range(6)]
    rows: list[Row] = [(x, (n, *range(n, 5 * n))) for n, x in enumerate(prompts)]
    rows += [(prompts[0], (7, 8, 9))]
    found = packs(rows, 1000, parts=2)
    assert sorted(index for pack in found for index in pack) == list(range(7))
    assert any({0, 6} <= set(pack) for pack in found), "siblings were separated"
    sizes = [sum(len(rows[i][0]) + len(rows[i][1]) for i in pack) for pack in found]
    assert len(found) == 2
    assert max(sizes) < 1.3 * min(sizes)
    # one prompt with many answers is divided, although its tokens are then computed twice
    siblings: list[Row] = [(prompts[1], tuple(range(n, n + 40))) for n in range(8)]
    assert sorted(len(pack) for pack in packs(siblings, 1000, parts=2)) == [3, 5]
    assert len(packs(siblings[:1], 1000, parts=2)) == 1


@pytest.mark.parametrize("held", [0, 1000])
def test_step_is_the_same_sequentially(
    tiny: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None, held: int
) -> None:
    monkeypatch.setattr(parallel, "MIN_PACK_TOKENS", 20)
    monkeypatch.setattr(logprobs, "MIN_PACK_TOKENS", 20)
    bench = Bench(tiny, tmp_path / "1", "kto", Budget(100, held))
    asked: list[int] = []

    def one_by_one(function: Any, items: Any, *, concurrency: int) -> Iterator[Any]:
        asked.append(concurrency)
        torch.set_num_threads(1)  # as in each of several threads
        yield from map(function, items)
        torch.set_num_threads(2)

    together, gradients = bench.backward(EXAMPLE_STEP)
    monkeypatch.setattr(step, "parallel_map", one_by_one)
    apart, expected = bench.backward(EXAMPLE_STEP)
    assert set(asked) == {2}
    assert together == apart
    assert all(map(torch.equal, gradients, expected))


def test_packs_that_draw_random_numbers_run_in_order(
    tiny: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    monkeypatch.setattr(parallel, "MIN_PACK_TOKENS", 20)
    drawn = Bench(tiny, tmp_path / "1", "kto", Budget(100, 0), dropout=0.5).runner
    assert drawn._concurrency == 1
    drawn.lora.detach()
    assert Bench(tiny, tmp_path / "2", "kto", Budget(100, 0)).runner._concurrency == 2


@pytest.mark.slow
def test_runs_on_several_cores_end_with_the_same_bytes(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    monkeypatch.setattr(parallel, "MIN_PACK_TOKENS", 20)
    monkeypatch.setattr(logprobs, "MIN_PACK_TOKENS", 20)
    asked: list[int] = []
    real = step.parallel_map

    def counted(function: Any, items: Any, *, concurrency: int) -> Iterator[Any]:
        asked.append(concurrency)
        return real(function, items, concurrency=concurrency)

    monkeypatch.setattr(step, "parallel_map", counted)
    found = set()
    for name in ("one", "other"):
        run_dir = make_run(name, threads=2, seed=3)
        train.train(run_dir)
        found.add((run_dir / "adapter" / WEIGHTS).read_bytes())
    assert len(found) == 1
    assert set(asked) == {2}
