"""Splitting long lists of ids, so that statements stay short."""

from collections.abc import Iterator


def batched(ids: list[int], size: int) -> Iterator[list[int]]:
    """Yield the ids in lists of `size`."""
    return (ids[start : start + size] for start in range(0, len(ids), size))
