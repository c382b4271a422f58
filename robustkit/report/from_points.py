"""What one run of an attack says at every eps, or after any number of queries: from its points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from robustkit.analysis.statistics import robust_within
from robustkit.arrays import EvalPoints
from robustkit.records import Rate
from robustkit.report.collect import Evaluation
from robustkit.report.measures import Curve, aligned, points_key
from robustkit.report.words import attack_name, options, threat_text, told_apart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRID = 120
"""Places at which a curve is drawn."""
LINES = 10
"""Sizes in a table, at most, of a round number each."""
MOST = 0.95
"""Share of the broken points whose sizes a table covers: a few are far larger."""


@dataclass(frozen=True)
class Column:
    """An attack, or the worst case of several, and what it took to break each point (N,).

    `spent` is NaN where nothing broke a point.
    """

    name: str
    options: str
    points: EvalPoints
    spent: NDArray[np.float64]

    def robust(self, limit: float) -> Rate:
        """Give the robust accuracy at a size, or after so many queries."""
        return robust_within(self.points, self.spent, limit)


@dataclass(frozen=True)
class Spent:
    """Attacks that were run once, and say robust accuracy by eps or by queries."""

    by: str
    """"eps" or "queries"."""
    where: str
    """Norm and box, and for queries the eps."""
    axis: str
    """What curves run over."""
    columns: tuple[Column, ...]
    evaluations: tuple[Evaluation, ...]

    def curves(self) -> Iterator[Curve]:
        """Give a curve for each attack, and for the worst case of several."""
        import numpy as np

        grid = np.linspace(0, self._largest(1.0), GRID)
        for column in self.columns:
            rates = tuple(column.robust(float(limit)) for limit in grid)
            at = tuple(float(limit) for limit in grid)
            name = column.name + self.evaluations[0].record.threat.model().terms
            yield Curve(name, column.options, self.axis, at, rates, minimal=True)

    def limits(self, also: Sequence[float] = ()) -> list[float]:
        """Choose round places for a table, from 0 on, and those that are also asked for."""
        if self.by == "eps":
            largest = self._largest(MOST)
            step = _round_up(largest / LINES)
            return sorted({*(i * step for i in range(math.ceil(largest / step) + 1)), *also})
        budget = max(float(column.points.forwards.max(initial=0)) for column in self.columns)
        powers = [10.0**k for k in range(1, 1 + math.ceil(math.log10(max(budget, 10))))]
        rounds = {factor * power for power in powers for factor in (1, 2, 5)}
        return sorted({0.0, *(r for r in rounds if r < budget), budget})

    def _largest(self, share: float) -> float:
        """Give what breaks that share of the points that some attack broke at all; else 1."""
        import numpy as np

        broken = [column.spent[np.isfinite(column.spent)] for column in self.columns]
        return max((float(np.quantile(s, share)) for s in broken if s.size), default=1.0) or 1.0


def spent(evaluations: Sequence[Evaluation]) -> list[Spent]:
    """Group the evaluations that say so much, on the same points of the same weights."""
    groups: dict[tuple[Any, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        by = _by(evaluation)
        if by:
            record = evaluation.record
            key = (by, record.threat.model(), record.model_hash, *points_key(evaluation))
            groups.setdefault(key, []).append(evaluation)
    return [_spent(by, group) for (by, *_), group in groups.items()]


def _by(evaluation: Evaluation) -> str:
    """Say over what an evaluation is known: over eps, over queries, or over neither ("").

    Queries are counted where one attack alone asked for no gradient and let go of broken points.
    """
    record, points = evaluation.record, evaluation.points
    if not record.valid or record.threat.norm == "none" or record.threat.target is not None:
        return ""
    if math.isinf(record.threat.eps):
        return "eps"
    told = len(record.parts) == 1 and not record.parts[0].spread
    asked = points.forwards.max(initial=0) > 1 and not points.backwards.any()
    return "queries" if told and asked else ""


def _spent(by: str, group: Sequence[Evaluation]) -> Spent:
    import numpy as np

    first = group[0].record
    records = [evaluation.record for evaluation in group]
    names = told_apart([(attack_name(r), options(r.attack)) for r in records])
    columns = []
    for name, evaluation in zip(names, group, strict=True):
        points = aligned(evaluation.points)
        cost = points.sizes if by == "eps" else points.forwards
        cost = np.where(points.broken_by >= 0, cost, np.nan)
        columns.append(Column(name, options(evaluation.record.attack), points, cost))
    if len(columns) > 1:
        columns.append(_worst(columns))
    terms = first.threat.model().terms
    if by == "eps":
        where, axis = f"{first.threat.norm}{terms}", f"{first.threat.norm} perturbation size eps"
    else:
        where = threat_text(first.threat)
        axis = f"queries, {where}"
    return Spent(by, where, axis, tuple(columns), tuple(group))


def _worst(columns: Sequence[Column]) -> Column:
    """Combine attacks: each point falls to whichever breaks it for least."""
    import numpy as np

    least = np.fmin.reduce([column.spent for column in columns])
    first = columns[0].points
    points = replace(
        first,
        robust=np.logical_and.reduce([column.points.robust for column in columns]),
        broken_by=np.where(np.isfinite(least), 0, first.broken_by),
        forwards=np.sum([column.points.forwards for column in columns], axis=0),
    )
    return Column("worst case", "robust by all of them", points, least)


def _round_up(step: float) -> float:
    """Give the next larger 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= step * (1 - 1e-9))
