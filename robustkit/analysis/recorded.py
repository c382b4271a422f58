"""From evaluations and label metrics to the records of analyses. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustkit.analysis import costs
from robustkit.analysis.records import (
    CostRecord,
    Direction,
    DirectionApart,
    DirectionsRecord,
    Evaluated,
    GapRecord,
    Metric,
    PairCost,
    ScoreRecord,
)
from robustkit.analysis.statistics import require_same_points
from robustkit.errors import BadValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustkit.arrays import EvalPoints
    from robustkit.metric import LabelMetric
    from robustkit.records import EvalRecord

MOST = 10
"""Pairs of classes that a record names."""


@dataclass(frozen=True)
class Measured:
    """An evaluation in its run, as analyses take it."""

    run: Path
    record: EvalRecord
    points: EvalPoints

    def named(self) -> Evaluated:
        """Say which evaluation it is, and with which verdicts."""
        return Evaluated(
            run=str(self.run), evaluation=self.record.stem, points=digest_of(self.points)
        )

    def require_valid(self) -> None:
        """Raise BadValueError where a broken attack made it, so that its errors mean nothing."""
        if not self.record.valid:
            broken = next(part.name for part in self.record.parts if part.rejected)
            raise BadValueError(f"'{self.record.stem}' says nothing: '{broken}' left the threat")


@dataclass(frozen=True)
class Named:
    """A label metric, and the name or path that it was found by."""

    name: str
    metric: LabelMetric

    def of(self, record: EvalRecord) -> LabelMetric:
        """Give it in the order of an evaluation's classes. Raises UnknownNameError."""
        return self.metric.reordered(record.classes)


def digest_of(points: EvalPoints) -> str:
    """Give 8 hexadecimal digits of points and verdicts: equal ones, equal digits, in any order."""
    seen, order = hashlib.sha256(), points.ids.argsort(kind="stable")
    for values in (
        points.ids,
        points.labels,
        points.clean_predictions,
        points.adversarial_predictions,
        points.robust,
    ):
        seen.update(values[order].astype("<i8").tobytes())
    return seen.hexdigest()[:8]


def cost_record(measured: Measured, named: Named) -> CostRecord:
    """Say what an evaluation's errors cost. Raises BadValueError where it is not valid."""
    measured.require_valid()
    record, points = measured.record, measured.points
    metric = named.of(record)
    attacked = (points.labels, points.adversarial_predictions, metric.costs)
    pairs = costs.costly_pairs(record.confusion_adversarial, metric.costs, MOST)
    return CostRecord(
        evaluated=measured.named(),
        metric=Metric.of(metric, named.name),
        clean=costs.expected_cost(points.labels, points.clean_predictions, metric.costs),
        adversarial=costs.expected_cost(*attacked),
        score=costs.score(*attacked),
        pairs=tuple(
            PairCost(
                label=record.classes[pair.label],
                predicted=record.classes[pair.predicted],
                count=pair.count,
                cost=float(metric.costs[pair.label, pair.predicted]),
                share=pair.share,
            )
            for pair in pairs
        ),
    )


def gap_record(robust: Measured, standard: Measured, named: Named | None) -> GapRecord:
    """Give the accuracy gap of two models, and its correlation with a metric where one is named.

    Raises BadValueError where they were not evaluated on the same points, in the same order.
    """
    require_same_points((robust.points, standard.points))
    gap = costs.accuracy_gap(robust.record.confusion_clean, standard.record.confusion_clean)
    metric = named and named.of(robust.record)
    return GapRecord(
        robust=robust.named(),
        standard=standard.named(),
        n=robust.record.clean.n,
        classes=robust.record.classes,
        gap=tuple(tuple(row) for row in gap.tolist()),
        metric=Metric.of(metric, named.name) if named and metric else None,
        correlation=costs.correlation(gap, metric.costs) if metric else None,
    )


def score_record(measured: Measured, named: Named, other: Measured | None = None) -> ScoreRecord:
    """Give the weighted robustness score, and how it differs from another model's.

    Raises BadValueError where one is not valid, or they are not of the same points in one order.
    """
    ours, metric = measured.points, named.of(measured.record)
    measured.require_valid()
    score = costs.score(ours.labels, ours.adversarial_predictions, metric.costs)
    found = ScoreRecord(
        evaluated=measured.named(), metric=Metric.of(metric, named.name), score=score
    )
    if other is None:
        return found
    other.require_valid()
    theirs = other.points
    require_same_points((ours, theirs))
    return found.model_copy(
        update={
            "against": other.named(),
            "other": costs.score(theirs.labels, theirs.adversarial_predictions, metric.costs),
            "difference": costs.score_difference(
                ours.labels,
                ours.adversarial_predictions,
                theirs.adversarial_predictions,
                metric.costs,
            ),
        }
    )


def directions_record(
    measured: Measured, other: Measured | None = None, named: Named | None = None
) -> DirectionsRecord:
    """Say which pairs of classes hold, those of another model, and how they go with a metric.

    Raises BadValueError where one is not valid, or they are not of the same points in one order.
    """
    measured.require_valid()
    classes, ours = measured.record.classes, measured.points
    if other:
        other.require_valid()
        require_same_points((ours, other.points))
    counts = costs.turned(ours, len(classes), other.points if other else None)
    theirs = costs.turned(other.points, len(classes), ours) if other else None
    found = tuple(
        Direction(label=classes[p.label], predicted=classes[p.predicted], turned=p.rate)
        for p in costs.directions(counts)
    )
    metric = named.of(measured.record) if named else None
    return DirectionsRecord(
        evaluated=measured.named(),
        classes=classes,
        counts=_cells(counts),
        least=found[:MOST],
        most=tuple(sorted(found, key=lambda pair: (pair.turned.value, pair.turned.high))[:MOST]),
        against=other.named() if other else None,
        other_counts=() if theirs is None else _cells(theirs),
        apart=_apart(measured, other) if other else (),
        metric=Metric.of(metric, named.name) if named and metric else None,
        correlation=_with_cost(counts, metric),
        other_correlation=_with_cost(theirs, metric),
    )


def _cells(counts: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in counts.tolist())


def _apart(measured: Measured, other: Measured) -> tuple[DirectionApart, ...]:
    classes = measured.record.classes
    return tuple(
        DirectionApart(
            label=classes[pair.label],
            predicted=classes[pair.predicted],
            first=pair.first,
            second=pair.second,
            difference=pair.difference,
        )
        for pair in costs.turned_apart(measured.points, other.points, len(classes), MOST)
    )


def _with_cost(counts: NDArray[np.int64] | None, metric: LabelMetric | None) -> float | None:
    if counts is None or metric is None:
        return None
    return costs.correlation(costs.normalised(counts), metric.costs).without_diagonal
