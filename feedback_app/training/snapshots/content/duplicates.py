"""Near-duplicate texts by MinHash: Broder 1997, with the banding of Leskovec, Rajaraman and Ullman,
*Mining of Massive Datasets*, section 3.4.

A text is the set of its overlapping sequences of SHINGLE words. The share of equal values in two
signatures estimates the share of sequences that the texts have in common (Jaccard). Texts that
agree in a whole band are compared; the time is linear in the number of texts.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # imported in the functions that use it: other processes need no numpy (25 MB)
    import numpy as np

    Signature = np.ndarray[Any, np.dtype[np.uint64]]

SHINGLE = 3  # words
BANDS, ROWS = 16, 4
#: Texts with at least this estimated share in common are near duplicates.
ALIKE = 0.8
#: Sequences of a text that are read: of longer texts the beginning.
MOST_SHINGLES = 2_000
_PRIME = (1 << 61) - 1
_MASK = (1 << 32) - 1


def near_duplicates(texts: Iterable[str]) -> list[list[int]]:
    """Return groups of two or more texts that are alike, as their positions; largest first."""
    signatures = [signature_of(text) for text in texts]
    parent = list(range(len(signatures)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for band in range(BANDS):
        first: dict[bytes, int] = {}
        for at, signature in enumerate(signatures):
            # compared with the first of its bucket only, so that a bucket of many takes no more
            other = first.setdefault(signature[band * ROWS : (band + 1) * ROWS].tobytes(), at)
            apart = other != at and root(other) != root(at)
            if apart and alike(signatures[other], signature):
                parent[root(at)] = root(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for at in range(len(signatures)):
        groups[root(at)].append(at)
    found = [group for group in groups.values() if len(group) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))


def alike(one: "Signature", other: "Signature") -> bool:
    return float((one == other).mean()) >= ALIKE


def signature_of(text: str) -> "Signature":
    """Return the MinHash signature, shape (BANDS · ROWS,)."""
    import numpy as np

    hashes = np.array([zlib.crc32(part) for part in shingles(text)], dtype=np.uint64)
    factors, offsets = permutations()
    # in 61 bits without overflow: a hash has 32 bits, a factor 29
    mixed = (hashes[:, None] * factors + offsets) % np.uint64(_PRIME) & np.uint64(_MASK)
    least: Signature = mixed.min(axis=0)
    return least


@cache
def permutations() -> "tuple[Signature, Signature]":
    """Return the factors and offsets of the hash functions, always the same."""
    import numpy as np

    rng = np.random.default_rng(1997)
    factors = rng.integers(1, 1 << 29, size=BANDS * ROWS, dtype=np.uint64)
    return factors, rng.integers(0, 1 << 29, size=BANDS * ROWS, dtype=np.uint64)


def shingles(text: str) -> Sequence[bytes]:
    """Return the text's overlapping sequences; of text without spaces those of its characters."""
    lowered = text.lower()
    words = lowered.split()
    if len(words) * 20 < len(lowered):
        words = list("".join(words))
    last = max(1, len(words) - SHINGLE + 1)
    return [" ".join(words[at : at + SHINGLE]).encode() for at in range(min(last, MOST_SHINGLES))]
