"""Near-duplicate texts by MinHash and locality-sensitive hashing (datasketch).

A text is the set of its overlapping sequences of SHINGLE words. The share of equal values in two
signatures estimates the share of sequences that the texts have in common (Jaccard).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # imported in the functions that use it: other processes need neither numpy nor scipy
    from datasketch import MinHash

SHINGLE = 3  # words
#: Texts that agree in all ROWS values of one of BANDS parts of their signatures are compared.
BANDS, ROWS = 16, 4
#: Texts with at least this estimated share in common are near duplicates.
ALIKE = 0.8
#: Sequences of a text that are read: of longer texts the beginning.
MOST_SHINGLES = 2_000


def near_duplicates(texts: Iterable[str]) -> list[list[int]]:
    """Return groups of two or more texts that are like the first of them, as positions; largest
    first.

    Only the first text of a group is in the index, so that many equal ones take no more time.
    """
    from datasketch import MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    firsts: dict[int, MinHash] = {}
    groups: dict[int, list[int]] = {}
    for at, text in enumerate(texts):
        signature = signature_of(text)
        found = sorted(index.query(signature))
        first = next((one for one in found if signature.jaccard(firsts[one]) >= ALIKE), at)
        if first == at:
            index.insert(at, signature)
            firsts[at] = signature
        groups.setdefault(first, []).append(at)
    several = [group for group in groups.values() if len(group) > 1]
    return sorted(several, key=lambda group: (-len(group), group[0]))


def signature_of(text: str) -> "MinHash":
    """Return the signature, of BANDS · ROWS values."""
    from datasketch import MinHash

    signature = MinHash(num_perm=BANDS * ROWS, seed=1)
    signature.update_batch(shingles(text))
    return signature


def shingles(text: str) -> Sequence[bytes]:
    """Return the text's overlapping sequences; of text without spaces those of its characters."""
    lowered = text.lower()
    words = lowered.split()
    if len(words) * 20 < len(lowered):
        words = list("".join(words))
    last = max(1, len(words) - SHINGLE + 1)
    return [" ".join(words[at : at + SHINGLE]).encode() for at in range(min(last, MOST_SHINGLES))]
