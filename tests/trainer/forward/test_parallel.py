"""Packs side by side: the same results in the same order, whoever finishes first."""

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
from trainer.forward.parallel import side_by_side
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
        found = list(side_by_side(one, range(4), at_a_time=2))
    assert found == [(item, 1, False) for item in range(4)]
    assert torch.get_num_threads() == 2


def test_a_fault_is_told_when_the_others_are_done(two_threads: None) -> None:
    done: list[int] = []

    def one(item: int) -> int:
        if item == 0:
            raise ValueError("broken")
        time.sleep(0.1)
        done.append(item)
        return item

    with pytest.raises(ValueError, match="broken"):
        list(side_by_side(one, range(20), at_a_time=2))
    assert done, "what had begun was not waited for"
    assert len(done) < 19, "what had not begun was begun"


def test_number_of_workers(two_threads: None) -> None:
    assert parallel.workers(CPU, 4096) == 2  # no more than threads
    assert parallel.workers(CPU, 1024) == 2  # two packs of 512 tokens
    assert parallel.workers(CPU, 1023) == 1
    assert parallel.workers(CPU, 100) == 1  # never none
    assert parallel.workers(torch.device("cuda"), 4096) == 1
    torch.set_num_threads(8)  # set back by the fixture
    assert parallel.workers(CPU, 4096) == 8
    assert parallel.workers(CPU, 2047) == 3


def test_packs_for_several_workers_are_about_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "WORTH_A_PACK", 10)
    prompts = [tuple(range(100 * n, 100 * n + 20)) for n in range(6)]
    rows: list[Row] = [(x, (n, *range(n, 5 * n))) for n, x in enumerate(prompts)]
    rows += [(prompts[0], (7, 8, 9))]
    found = packs(rows, 1000, parts=2)
    assert sorted(index for pack in found for index in pack) == list(range(7))
    assert any({0, 6} <= set(pack) for pack in found), "siblings were parted"
    sizes = [sum(len(rows[i][0]) + len(rows[i][1]) for i in pack) for pack in found]
    assert len(found) == 2
    assert max(sizes) < 1.3 * min(sizes)
    # one prompt with many answers is cut, though its tokens are then computed twice
    siblings: list[Row] = [(prompts[1], tuple(range(n, n + 40))) for n in range(8)]
    assert sorted(len(pack) for pack in packs(siblings, 1000, parts=2)) == [3, 5]
    assert len(packs(siblings[:1], 1000, parts=2)) == 1


@pytest.mark.parametrize("held", [0, 1000])
def test_a_step_is_the_same_one_by_one(
    tiny: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None, held: int
) -> None:
    monkeypatch.setattr(parallel, "WORTH_A_PACK", 20)
    monkeypatch.setattr(logprobs, "WORTH_A_PACK", 20)
    bench = Bench(tiny, tmp_path / "1", "kto", Budget(100, held))
    asked: list[int] = []

    def one_by_one(function: Any, items: Any, *, at_a_time: int) -> Iterator[Any]:
        asked.append(at_a_time)
        torch.set_num_threads(1)  # as each of several has
        yield from map(function, items)
        torch.set_num_threads(2)

    together, gradients = bench.backward(EXAMPLE_STEP)
    monkeypatch.setattr(step, "side_by_side", one_by_one)
    apart, expected = bench.backward(EXAMPLE_STEP)
    assert set(asked) == {2}
    assert together == apart
    assert all(map(torch.equal, gradients, expected))


def test_packs_that_draw_numbers_keep_their_turn(
    tiny: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    monkeypatch.setattr(parallel, "WORTH_A_PACK", 20)
    drawn = Bench(tiny, tmp_path / "1", "kto", Budget(100, 0), dropout=0.5).runner
    assert drawn._workers == 1
    drawn.lora.detach()
    assert Bench(tiny, tmp_path / "2", "kto", Budget(100, 0)).runner._workers == 2


def test_runs_on_several_cores_end_with_the_same_bytes(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    monkeypatch.setattr(parallel, "WORTH_A_PACK", 20)
    monkeypatch.setattr(logprobs, "WORTH_A_PACK", 20)
    asked: list[int] = []
    real = step.side_by_side

    def counted(function: Any, items: Any, *, at_a_time: int) -> Iterator[Any]:
        asked.append(at_a_time)
        return real(function, items, at_a_time=at_a_time)

    monkeypatch.setattr(step, "side_by_side", counted)
    found = set()
    for name in ("one", "other"):
        run_dir = make_run(name, threads=2, seed=3)
        train.train(run_dir)
        found.add((run_dir / "adapter" / WEIGHTS).read_bytes())
    assert len(found) == 1
    assert set(asked) == {2}
