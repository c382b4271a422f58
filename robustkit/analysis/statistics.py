"""Statistics of counted points. Imports neither torch nor numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustkit.errors import BadValueError
from robustkit.records import Rate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustkit.arrays import EvalPoints

Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal."""


def rate(count: int, n: int) -> Rate:
    """Give the share of `count` in `n` points with Wilson's 95 % score interval.

    Its coverage stays near 95 % at few points and at shares near 0 and 1, where the usual
    "plus or minus" fails (Wilson 1927; recommended by Brown, Cai and DasGupta 2001, section 3).
    No points: the interval is [0, 1]. Raises BadValueError unless 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise BadValueError(f"{count} of {n} points is not a share")
    if n == 0:
        return Rate(count=0, n=0, low=0.0, high=1.0)
    share, z2 = count / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if count == 0 else middle - half
    high = 1.0 if count == n else middle + half
    return Rate(count=count, n=n, low=low, high=high)


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same points: what each alone withstood, and how likely by chance."""

    only_first: int
    only_second: int
    p_value: float


def compare(first: EvalPoints, second: EvalPoints) -> Comparison:
    """Compare the verdicts of two evaluations by McNemar's exact test (two-sided).

    Raises BadValueError where they are not of the same points.
    """
    require_same_points((first, second))
    only_first = int((first.robust & ~second.robust).sum())
    only_second = int((second.robust & ~first.robust).sum())
    return Comparison(only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Give the chance of so uneven a split of the points that differ, if each were a fair coin.

    McNemar 1947, in the exact binomial form.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    tail, term = 0, 1
    for i in range(least + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * tail / 2**n)


def worst_case(evaluations: Sequence[EvalPoints]) -> Rate:
    """Give the share of points that are robust in every one of the evaluations.

    Raises BadValueError where there is none, or they are not of the same points.
    """
    require_same_points(evaluations)
    robust = evaluations[0].robust
    for points in evaluations[1:]:
        robust = robust & points.robust
    return rate(int(robust.sum()), len(robust))


def robust_at(points: EvalPoints, eps: float) -> Rate:
    """Give robust accuracy at `eps` from an evaluation at eps = inf, whose sizes are smallest ones.

    A point is broken at `eps` where its perturbation's size is at most `eps`; what was not robust
    for another reason (wrong when clean, no verdict) stays so.
    """
    return robust_within(points, points.sizes, eps)


def robust_within(points: EvalPoints, spent: NDArray[np.float64], limit: float) -> Rate:
    """Give the accuracy that is left within a limit of what breaking each point took (N,)."""
    later = (points.broken_by >= 0) & (spent > limit)
    return rate(int((points.robust | later).sum()), len(points.robust))


def require_same_points(evaluations: Sequence[EvalPoints]) -> None:
    """Raise BadValueError unless there are evaluations and all are of the same points, in order."""
    if not evaluations:
        raise BadValueError("no evaluation to take the worst case of")
    ids = [points.ids.tolist() for points in evaluations]
    if any(other != ids[0] for other in ids[1:]):
        raise BadValueError(
            "evaluations of different points cannot be compared; "
            "evaluate all with the same data, part, seed and limit"
        )
