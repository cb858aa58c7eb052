"""The reference cache: computed once, kept on disk, never trusted where it does not belong."""

from pathlib import Path
from typing import Any

import pytest

from trainer import reference
from trainer.logprobs import Row
from trainer.model import LoadedBase
from trainer.reference import ReferenceCache, pair_key

ROWS: list[Row] = [((5, 6), (7, 8)), ((5, 6, 7), (8,)), ((9,), (10, 11, 12))]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each forward pass."""
    seen: list[int] = []
    real = reference.sequence_logprobs

    def counted(model: Any, rows: Any) -> Any:
        seen.append(len(rows))
        return real(model, rows)

    monkeypatch.setattr(reference, "sequence_logprobs", counted)
    return seen


def test_values_are_computed_once_and_survive_the_process(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    path = tmp_path / "reference.jsonl"
    first = ReferenceCache(path, fingerprint="a").logprobs(tiny.model, ROWS, token_budget=100)
    assert passes == [3]
    again = ReferenceCache(path, fingerprint="a").logprobs(tiny.model, ROWS, token_budget=100)
    assert passes == [3]
    assert again == first  # to the last bit


def test_values_of_another_base_are_not_used(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    path = tmp_path / "reference.jsonl"
    ReferenceCache(path, fingerprint="a").logprobs(tiny.model, ROWS, token_budget=100)
    ReferenceCache(path, fingerprint="b").logprobs(tiny.model, ROWS, token_budget=100)
    assert passes == [3, 3]


def test_line_that_a_crash_cut_off_is_dropped(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    path = tmp_path / "reference.jsonl"
    first = ReferenceCache(path, fingerprint="a").logprobs(tiny.model, ROWS, token_budget=100)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = ReferenceCache(path, fingerprint="a").logprobs(tiny.model, ROWS, token_budget=100)
    assert again == first
    assert passes == [3, 3]
    assert path.read_bytes() == whole


def test_group_with_one_unknown_row_is_computed_whole(
    tiny: LoadedBase, tmp_path: Path, passes: list[int]
) -> None:
    cache = ReferenceCache(tmp_path / "reference.jsonl", fingerprint="a")
    known = cache.logprobs(tiny.model, ROWS[:2], token_budget=100)
    found = cache.logprobs(tiny.model, ROWS, token_budget=100)
    assert passes == [2, 3]
    assert found[:2] == known  # the value that came first stays


def test_progress_counts_rows(tiny: LoadedBase, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    ReferenceCache(tmp_path / "reference.jsonl", fingerprint="a").logprobs(
        tiny.model, ROWS, token_budget=4, on_progress=lambda *done: seen.append(done)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_pair_key_knows_where_the_prompt_ends() -> None:
    assert pair_key(((1, 2), (3,))) != pair_key(((1,), (2, 3)))
    assert pair_key(((1, 2), (3,))) == pair_key(([1, 2], [3]))
