"""What errors cost, and between which classes they lie. Imports no torch.

Confusion matrices (K, K) count labels (rows) by predictions (columns); `costs` is a label metric
(K, K), its entries C[y, a] in [0, 1]; labels and predictions are integers (N,) in [0, K).
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustkit.analysis.bounded import bounded_mean, sum_of_means
from robustkit.analysis.records import Correlation, Estimate
from robustkit.analysis.statistics import rate
from robustkit.errors import BadValueError
from robustkit.records import Rate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from robustkit.arrays import EvalPoints


def normalised(confusion: ArrayLike) -> NDArray[np.float64]:
    """Divide each row by its sum: m_ij is the share of class i that is taken for j.

    The row of a class without points is NaN. Raises BadValueError unless (K, K) of counts.
    """
    import numpy as np

    counts = _square(confusion, "a confusion matrix")
    sums = counts.sum(1, keepdims=True)
    return np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)


def accuracy_gap(robust: ArrayLike, standard: ArrayLike) -> NDArray[np.float64]:
    """Give `G = |C_robust - C_standard|` of two clean confusion matrices, rows normalised.

    Terzi et al. 2020, definition 1. (K, K) in [0, 1]; NaN in rows of classes without points.
    Raises BadValueError where the two are not of as many classes.
    """
    import numpy as np

    ours, others = normalised(robust), normalised(standard)
    _same_classes(ours, others, "confusion matrices")
    return np.abs(ours - others)


def correlation(gap: ArrayLike, costs: ArrayLike) -> Correlation:
    """Correlate an accuracy gap with a metric by Pearson's rho over their cells, both ways.

    Terzi et al. 2020, table 1, does not say whether the diagonal counts, and it changes much: there
    the cost is 0 and the gap is largest. Rows of classes without points are left out. A rho is None
    where a matrix is constant over the cells (as the 0/1 metric is off the diagonal).
    """
    import numpy as np

    found, metric = _square(gap, "an accuracy gap"), _square(costs, "a metric")
    _same_classes(found, metric, "accuracy gap and metric")
    known = ~np.isnan(found)
    apart = known & ~np.eye(len(found), dtype=bool)
    return Correlation(
        with_diagonal=_pearson(found[known], metric[known]),
        without_diagonal=_pearson(found[apart], metric[apart]),
    )


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    import numpy as np

    if any(values.size < 2 or np.ptp(values) < 1e-12 for values in (x, y)):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def weighted_score(confusion: ArrayLike, costs: ArrayLike) -> float:
    """Give the weighted robustness score `S = sum_ij c_ij m_ij` (Terzi et al. 2020, eq. 7).

    C is the metric itself, not its power C^p, and m the row-normalised adversarial confusion
    matrix. It is a sum over the rows, not a mean: each class adds its own expected cost, so S lies
    in [0, K], and the rows of classes without points add nothing. Lower is better; tables give it
    less that of another model.
    """
    import numpy as np

    shares, metric = normalised(confusion), _square(costs, "a metric")
    _same_classes(shares, metric, "confusion matrix and metric")
    return float(np.nansum(shares * metric))


def score(labels: ArrayLike, predictions: ArrayLike, costs: ArrayLike) -> Estimate:
    """Give the weighted robustness score of points with its 95 % interval (see weighted_score)."""
    import numpy as np

    return sum_of_means(np.asarray(labels), point_costs(labels, predictions, costs))


def score_difference(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, costs: ArrayLike
) -> Estimate:
    """Give the first model's score less the second's, of the same points (N,) in the same order.

    Paired: the interval is of the differences point by point, so what both get wrong alike does
    not widen it.
    """
    import numpy as np

    difference = point_costs(labels, first, costs) - point_costs(labels, second, costs)
    return sum_of_means(np.asarray(labels), difference, -1.0, 1.0)


def point_costs(labels: ArrayLike, predictions: ArrayLike, costs: ArrayLike) -> NDArray[np.float64]:
    """Give C[y, a] of each point (N,), 0 where it is right.

    Raises BadValueError where a label or prediction is no class of the metric.
    """
    import numpy as np

    metric = _square(costs, "a metric")
    y, a = np.asarray(labels), np.asarray(predictions)
    for name, values in (("label", y), ("prediction", a)):
        if values.size and not (values.min() >= 0 and values.max() < len(metric)):
            odd = values.min() if values.min() < 0 else values.max()
            raise BadValueError(f"{name} {odd} is none of the metric's {len(metric)} classes")
    return metric[y, a]


def expected_cost(labels: ArrayLike, predictions: ArrayLike, costs: ArrayLike) -> Estimate:
    """Give the mean over the points of C[y, a], 0 where they are right, with its 95 % interval.

    In [0, 1], where the metric's largest cost is 1: as a share of the worst that could happen.
    """
    return bounded_mean(point_costs(labels, predictions, costs))


@dataclass(frozen=True)
class Costly:
    """Errors of one class for another: indices, how many, and their share of the expected cost."""

    label: int
    predicted: int
    count: int
    share: float


def costly_pairs(confusion: ArrayLike, costs: ArrayLike, most: int = 10) -> list[Costly]:
    """Give the pairs of classes that add most to the expected cost, the dearest first.

    A pair adds `n_ij c_ij / N`; those that add nothing are left out.
    """
    import numpy as np

    counts, metric = _square(confusion, "a confusion matrix"), _square(costs, "a metric")
    _same_classes(counts, metric, "confusion matrix and metric")
    added = counts * metric
    order = np.argsort(-added, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [
        Costly(i, j, int(counts[i, j]), float(added[i, j] / added.sum()))
        for i, j in pairs
        if added[i, j] > 0
    ]


def turned(points: EvalPoints, classes: int, other: EvalPoints | None = None) -> NDArray[np.int64]:
    """Count the points that were right when clean by label (rows) and by what became of them.

    (K, K): on the diagonal those that held, elsewhere those that the attack turned into that class.
    With another model's evaluation of the same points in the same order, only those count that were
    right when clean by both.
    """
    import numpy as np

    right = points.clean_predictions == points.labels
    if other:
        right &= other.clean_predictions == other.labels
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (points.labels[right], points.adversarial_predictions[right]), 1)
    return counts


@dataclass(frozen=True)
class Turned:
    """How often class `label` was turned into `predicted`, of its points right when clean."""

    label: int
    predicted: int
    rate: Rate


def directions(counts: ArrayLike) -> list[Turned]:
    """Give directional robustness from what `turned` counts: each ordered pair, least held first.

    Terzi et al. 2020, section 5.3 and figure 11, which give no formula. Pairs that were turned as
    often come in order of what the interval still allows, so that a class of many points holds
    better than one of few. Classes without points that were right when clean are left out.
    """
    matrix = _square(counts, "a confusion matrix").astype(int).tolist()
    found = [
        Turned(i, j, rate(count, sum(row)))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and sum(row)
    ]
    return sorted(found, key=lambda pair: (-pair.rate.value, -pair.rate.high))


@dataclass(frozen=True)
class TurnedApart:
    """How often class `label` was turned into `predicted` in two models, of the same points."""

    label: int
    predicted: int
    first: Rate
    second: Rate
    difference: Estimate
    """The first's share less the second's, in [-1, 1]; paired, with its 95 % interval."""


def turned_apart(
    first: EvalPoints, second: EvalPoints, classes: int, most: int = 10
) -> list[TurnedApart]:
    """Give the ordered pairs of classes whose turned shares differ most, the farthest first.

    Of the points that both models had right when clean (see `turned`), so that the shares are of
    the same points and what both lose alike does not widen the interval of their difference.
    """
    import numpy as np

    counts = [turned(first, classes, second), turned(second, classes, first)]
    apart = np.abs(np.nan_to_num(normalised(counts[0]) - normalised(counts[1])))
    np.fill_diagonal(apart, 0)
    right = (first.clean_predictions == first.labels) & (second.clean_predictions == second.labels)
    found = []
    for place in np.argsort(-apart, axis=None, kind="stable")[:most]:
        i, j = divmod(int(place), classes)
        here = right & (first.labels == i)
        ours, theirs = (each.adversarial_predictions[here] == j for each in (first, second))
        if apart[i, j] > 0:
            difference = bounded_mean(ours.astype(float) - theirs, -1.0, 1.0)
            first_rate, second_rate = (rate(int(m.sum()), len(m)) for m in (ours, theirs))
            found.append(TurnedApart(i, j, first_rate, second_rate, difference))
    return found


def _square(values: ArrayLike, what: str) -> NDArray[np.float64]:
    import numpy as np

    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise BadValueError(f"{what} is {'x'.join(map(str, matrix.shape))}, not square")
    return matrix


def _same_classes(first: Sized, second: Sized, what: str) -> None:
    if len(first) != len(second):
        raise BadValueError(f"{what} are of {len(first)} and {len(second)} classes")
