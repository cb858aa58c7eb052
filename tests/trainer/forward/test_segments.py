"""The forest of rows: every row can be reconstructed, and shared prefixes are stored once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.backends.base import Forest
from trainer.forward.segments import MIN_SHARED_TOKENS, branches, common_prefix, forest

pytestmark = pytest.mark.slow

# few different tokens and long common prefixes, so that rows share much
BEGINNINGS = st.sampled_from([(1,) * 40, (1,) * 20 + (2,) * 25, (3,) * 5, ()])
ROWS = st.lists(
    st.builds(
        lambda head, tail: (*head, *tail), BEGINNINGS, st.lists(st.integers(0, 2), min_size=1)
    ),
    min_size=1,
    max_size=12,
)


def read(tree: Forest, row: int) -> tuple[int, ...]:
    return tuple(token for span in tree.paths[row] for token in tree.ids[span.start : span.stop])


@given(ROWS)
def test_every_row_is_the_path_of_its_segments(rows: list[tuple[int, ...]]) -> None:
    tree = forest(rows)
    for number, row in enumerate(rows):
        assert read(tree, number) == row
        columns = tree.columns(number, 0, len(row))
        assert [tree.ids[column] for column in columns] == list(row)
        assert [tree.positions[column] for column in columns] == list(range(len(row)))


@given(ROWS)
def test_segments_are_contiguous_and_see_their_prefix(rows: list[tuple[int, ...]]) -> None:
    tree = forest(rows)
    end = 0
    for segment in tree.segments:
        assert segment.span.start == end
        end = segment.span.stop
        assert sum(span.length for span in segment.above) == segment.position
        assert all(span.stop <= segment.span.start for span in segment.above)
    assert end == tree.length == len(tree.positions)


def test_long_shared_prefix_is_stored_once() -> None:
    system, question = tuple(range(100, 140)), tuple(range(200, 220))
    rows = [(*system, *question, 1), (*system, *question, 2, 3), (*system, 7)]
    assert forest(rows).length == 40 + 20 + 1 + 2 + 1


def test_short_prefixes_are_repeated() -> None:
    few = tuple(range(MIN_SHARED_TOKENS - 1))
    assert forest([(*few, 50), (*few, 60)]).length == 2 * (len(few) + 1)


def test_equal_rows_and_rows_within_rows_share_their_path() -> None:
    row = tuple(range(30))
    tree = forest([row, row[:20], row])
    assert tree.length == 30
    assert tree.paths[0] == tree.paths[2]
    assert read(tree, 1) == row[:20]


def test_branches_continue_at_the_end_of_a_row() -> None:
    base = forest([(*range(20), 30, 31), (*range(20), 40, 41)])
    tree = branches(base, [(0, 21), (1, 20)], [(5, 6), (7,)])
    first, second = tree.segments
    assert (tree.ids, tree.positions) == ((5, 6, 7), (21, 22, 20))
    assert [base.ids[c] for span in first.stored for c in range(span.start, span.stop)] == [
        *range(20),
        30,
    ]
    assert sum(span.length for span in second.stored) == 20
    assert first.above == second.above == ()


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix_is_the_longest(first: list[int], second: list[int]) -> None:
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]
