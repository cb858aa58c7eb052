"""Long lists of ids in batches, so that a statement stays short."""

from collections.abc import Iterator


def batched(ids: list[int], size: int) -> Iterator[list[int]]:
    """The ids in runs of `size`."""
    return (ids[start : start + size] for start in range(0, len(ids), size))
