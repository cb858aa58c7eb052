"""How the work of a step is divided: every piece once, and equally many calls where required."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import TrainConfig
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import Refused

pytestmark = pytest.mark.slow

SIZES = st.lists(st.integers(1, 4096), min_size=1, max_size=40)


@given(SIZES, st.integers(1, 9), st.booleans())
def test_every_piece_is_assigned_once(sizes: list[int], count: int, sharded: bool) -> None:
    found = [
        item.piece
        for rank in range(count)
        for item in ProcessGroup(rank, count, sharded).share(sizes)
        if item.counts
    ]
    assert sorted(found) == list(range(len(sizes)))


@given(SIZES, st.integers(2, 9))
def test_all_processes_make_equally_many_calls_with_a_sharded_base(
    sizes: list[int], count: int
) -> None:
    items = [ProcessGroup(rank, count, sharded=True).share(sizes) for rank in range(count)]
    assert {len(mine) for mine in items} == {-(-len(sizes) // count)}
    assert sum(not item.counts for mine in items for item in mine) < count


def test_largest_pieces_go_to_the_least_loaded_process() -> None:
    sizes = [10, 70, 20, 40]
    shares = [[item.piece for item in ProcessGroup(rank, 2).share(sizes)] for rank in (0, 1)]
    assert shares == [[1], [3, 2, 0]]


def test_sharded_base_cannot_be_held_in_four_bits() -> None:
    with pytest.raises(Refused, match="fsdp cannot spread a base that quantisation holds in four"):
        TrainConfig("some/model", "starter@1", fsdp=True, quantisation="4bit")
    with pytest.raises(Refused, match="fsdp must be true or false"):
        TrainConfig("some/model", "starter@1", fsdp="yes")  # type: ignore[arg-type]
