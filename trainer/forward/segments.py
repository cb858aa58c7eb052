"""Pack rows of token ids into a forest: a prefix that several rows share is stored, and computed,
once.

A prompt is shared by its own completion, by the other completions that people judged and by the
mismatched completion that z₀ needs; a system prompt by all of them. Every segment of the forest is
a run of tokens; a row is a path of segments from its root. The segments follow each other in a
packed stream without padding, and a token sees its own segment up to itself and those above it.
"""

from collections.abc import Sequence

from trainer.backends.base import Forest, Ids, Segment, Span

#: Tokens below which a segment of its own costs more than computing them twice.
MIN_SHARED_TOKENS = 16


def forest(rows: Sequence[Sequence[int]]) -> Forest:
    """Return the forest of rows, none of them empty. Equal rows share one path."""
    builder = _Builder([tuple(row) for row in rows])
    order = sorted(range(len(rows)), key=lambda row: builder.rows[row])
    builder.grow(order, offset=0, above=())
    return builder.done()


def branches(
    base: Forest, parents: Sequence[tuple[int, int]], rows: Sequence[Sequence[int]]
) -> Forest:
    """Return rows that continue rows of `base`, computed earlier: row i after the
    first `parents[i][1]` tokens of base row `parents[i][0]`."""
    builder = _Builder([tuple(row) for row in rows])
    for row, (parent, length) in enumerate(parents):
        builder.leaf([row], 0, length, base.prefix(parent, length), ())
    return builder.done()


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many leading tokens two rows share."""
    shortest = min(len(first), len(second))
    if first[:shortest] == second[:shortest]:
        return shortest
    low, high = 0, shortest  # the first difference is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


class _Builder:
    def __init__(self, rows: list[Ids]) -> None:
        self.rows = rows
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._segments: list[Segment] = []
        self._paths: list[tuple[Span, ...]] = [()] * len(rows)

    def grow(self, group: list[int], offset: int, above: tuple[Span, ...]) -> None:
        """Add a sorted group of rows whose first `offset` tokens are equal and held by `above`."""
        first, last = self.rows[group[0]], self.rows[group[-1]]
        shared = common_prefix(first, last)  # sorted: what these two share, all share
        if len(group) == 1 or shared == len(last):  # equal rows
            self.leaf(group, offset, offset, (), above)
            return
        if shared - offset >= MIN_SHARED_TOKENS:
            span = self._add(first[offset:shared], offset, (), above)
            offset, above = shared, (*above, span)
        # A row that ends where the others go on is a leaf without tokens of its own.
        ended = [row for row in group if len(self.rows[row]) == shared]
        if ended:
            self.leaf(ended, offset, offset, (), above)
        start = len(ended)
        for end in range(start + 1, len(group) + 1):
            if (
                end == len(group)
                or self.rows[group[end]][shared] != self.rows[group[start]][shared]
            ):
                self.grow(group[start:end], offset, above)
                start = end

    def leaf(
        self,
        rows: list[int],
        offset: int,
        position: int,
        stored: tuple[Span, ...],
        above: tuple[Span, ...],
    ) -> None:
        """The tokens of equal rows from `offset` on."""
        tokens = self.rows[rows[0]][offset:]
        path = above
        if tokens:
            path = (*above, self._add(tokens, position, stored, above))
        for row in rows:
            self._paths[row] = path

    def done(self) -> Forest:
        return Forest(
            tuple(self._ids), tuple(self._positions), tuple(self._segments), tuple(self._paths)
        )

    def _add(
        self, tokens: Ids, position: int, stored: tuple[Span, ...], above: tuple[Span, ...]
    ) -> Span:
        span = Span(len(self._ids), len(self._ids) + len(tokens))
        self._ids += tokens
        self._positions += range(position, position + len(tokens))
        self._segments.append(Segment(span, position, stored, above))
        return span
