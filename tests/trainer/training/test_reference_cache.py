"""The reference cache: computed once, stored on disk, used only for the matching base."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.distributed.process_group import ProcessGroup
from trainer.forward.logprobs import Row, batched_logprobs
from trainer.models.loading import LoadedBase
from trainer.training import reference_cache
from trainer.training.reference_cache import ReferenceCache, complete, pair_key

ROWS: list[Row] = [((5, 6), (7, 8)), ((5, 6, 7), (8,)), ((9,), (10, 11, 12))]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of rows of each forward pass."""
    seen: list[int] = []
    real = reference_cache.score

    def counted(model: Any, rows: Any) -> Any:
        seen.append(len(rows))
        return real(model, rows)

    monkeypatch.setattr(reference_cache, "score", counted)
    return seen


def fill(
    cache: ReferenceCache,
    tiny: LoadedBase,
    plan: Path,
    rows: list[Row] = ROWS,
    *,
    budget: int = 100,
    progress: list[tuple[int, int]] | None = None,
) -> list[list[float]]:
    """Return the cache's values for `rows` once it is complete."""
    seen = [] if progress is None else progress
    complete(
        cache,
        tiny.model,
        rows,
        token_budget=budget,
        plan=plan,
        on_progress=lambda *done: seen.append(done),
        process_group=ProcessGroup(),
    )
    return [cache[row].tolist() for row in rows]


def opened(path: Path, fingerprint: str = "a") -> ReferenceCache:
    return ReferenceCache(path / "reference", fingerprint=fingerprint)


def test_values_are_computed_once_and_stored(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    first = fill(opened(tmp_path), tiny, tmp_path / "1")
    assert passes == [3]
    for found, expected in zip(first, batched_logprobs(tiny.model, ROWS, 100), strict=True):
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
    again = fill(opened(tmp_path), tiny, tmp_path / "2")
    assert passes == [3]
    assert again == first  # bit for bit


def test_only_new_rows_need_a_forward_pass(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    fill(opened(tmp_path), tiny, tmp_path / "1", ROWS[:2])
    fill(opened(tmp_path), tiny, tmp_path / "2", [*ROWS, *ROWS])
    assert passes == [2, 1]


def test_values_of_another_base_are_not_used(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    fill(opened(tmp_path, "a"), tiny, tmp_path / "1")
    fill(opened(tmp_path, "b"), tiny, tmp_path / "2")
    assert passes == [3, 3]
    fill(opened(tmp_path, "a"), tiny, tmp_path / "3")  # both are kept
    assert passes == [3, 3]


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_partial_record_after_a_crash_is_dropped(
    tiny: LoadedBase, tmp_path: Path, passes: list[int], cut: int
) -> None:
    cache = opened(tmp_path)
    first = fill(cache, tiny, tmp_path / "1")
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole[:-cut])
    assert fill(opened(tmp_path), tiny, tmp_path / "1") == first
    assert passes == [3, 3]  # the same pack as before: the same rounding
    assert len(cache.path.read_bytes()) == len(whole)


def test_damaged_record_is_ignored(tiny: LoadedBase, tmp_path: Path) -> None:
    cache = opened(tmp_path)
    fill(cache, tiny, tmp_path / "1")
    raw = bytearray(cache.path.read_bytes())
    raw[-6] ^= 0xFF  # in the last value
    cache.path.write_bytes(raw)
    found = opened(tmp_path)
    assert [row in found for row in ROWS].count(True) == 2


def test_interrupted_plan_forms_the_same_packs_again(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    cache = opened(tmp_path)
    plan = tmp_path / "plan"
    expected = fill(cache, tiny, tmp_path / "other", budget=5)
    assert passes == [2, 1]
    cache.path.unlink()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    cache = opened(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        complete(
            cache,
            tiny.model,
            ROWS,
            token_budget=5,
            plan=plan,
            on_progress=stop,
            process_group=ProcessGroup(),
        )
    assert passes == [2, 1, 2]
    assert fill(opened(tmp_path), tiny, plan, budget=5) == expected
    assert passes == [2, 1, 2, 1]


def test_two_processes_append_without_losing_values(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.add({pair_key(ROWS[0]): torch.tensor([-1.0, -2.0])})
    second.add({pair_key(ROWS[1]): torch.tensor([-3.0]), pair_key(ROWS[0]): torch.zeros(2)})
    first.refresh()
    for cache in (first, second, opened(tmp_path)):
        assert cache[ROWS[0]].tolist() == [-1.0, -2.0]  # the first value is kept
        assert cache[ROWS[1]].tolist() == [-3.0]
        assert ROWS[2] not in cache


def test_progress_counts_rows(tiny: LoadedBase, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fill(opened(tmp_path), tiny, tmp_path / "1", budget=4, progress=seen)
    assert seen == [(2, 3), (3, 3)]  # two rows have the same tokens


def test_pair_key_depends_on_the_end_of_the_prompt() -> None:
    assert pair_key(((1, 2), (3,))) != pair_key(((1,), (2, 3)))
    assert pair_key(((1, 2), (3,))) == pair_key(([1, 2], [3]))


def test_values_of_a_device_are_sent_to_other_processes_from_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[bytes, torch.Tensor]] = []
    monkeypatch.setattr(dist, "all_gather_object", lambda found, value: sent.append(value))
    second = ProcessGroup(rank=1, size=2)
    with FakeTensorMode():  # tensors that say they are on a GPU, where there is none
        values = {bytes([n]): torch.empty(2 + n, device="cuda") for n in range(3)}
        opened(tmp_path).add_of_all(values, second)
    (found,) = sent
    assert [(key, len(tensor)) for key, tensor in found.items()] == [
        (bytes([n]), 2 + n) for n in range(3)
    ]
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert len({id(tensor.untyped_storage()) for tensor in found.values()}) == 3


def test_values_are_brought_to_the_host_in_one_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers: list[int] = []
    real = torch.Tensor.cpu

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        transfers.append(len(tensor))
        return real(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    cache = opened(tmp_path)
    values = {pair_key(row): torch.arange(len(row[1])).float() for row in ROWS}
    cache.add(values)
    assert transfers == [6]
    assert cache[ROWS[2]].tolist() == [0, 1, 2]
