"""Fewer points for a plot of long series, in which every peak and dip can still be seen."""

from collections.abc import Sequence

Series = Sequence[float | None]


def indexes_kept(series: Sequence[Series], *, most: int) -> list[int]:
    """Return the indexes of at most `most` points that draw the same lines, in order.

    The points are divided into groups of neighbours. Of each group stay the lowest and the highest
    value of every series; of the whole, the first and the last point. All of them stay if they are
    no more than `most`. The series have one length; None is a gap.
    """
    count = len(series[0])
    if count <= most:
        return list(range(count))
    groups = max(1, (most - 2) // (2 * len(series)))
    kept = {0, count - 1}
    for group in range(groups):
        inside = range(group * count // groups, (group + 1) * count // groups)
        for values in series:
            known = [(value, at) for at in inside if (value := values[at]) is not None]
            if known:
                kept |= {min(known)[1], max(known)[1]}
    return sorted(kept)
