"""What is counted from the points of evaluations: worst cases, curves over eps, rates by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustkit.analysis.statistics import rate, worst_case
from robustkit.arrays import EvalPoints
from robustkit.records import EvalRecord, Rate, digest
from robustkit.report.collect import Evaluation
from robustkit.report.words import attack_name, options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class WorstCase:
    """Points that are robust by every one of several evaluations of the same points."""

    evaluations: tuple[Evaluation, ...]
    robust: Rate


@dataclass(frozen=True)
class Curve:
    """Robust accuracy of one attack by eps or queries; at 0 it is the clean accuracy."""

    attack: str
    options: str
    axis: str
    """What it runs over; curves of one axis share a chart."""
    at: tuple[float, ...]
    rates: tuple[Rate, ...]
    minimal: bool = False
    """Whether it follows from the points of one run rather than from one attack an eps."""


def aligned(points: EvalPoints) -> EvalPoints:
    """Give the same points in order of their ids, so that those of two seeds can be compared."""
    order = points.ids.argsort(kind="stable")
    return EvalPoints(**{name: values[order] for name, values in vars(points).items()})


def same_points(evaluations: Iterable[Evaluation]) -> bool:
    """Say whether evaluations judged the same points of the same data."""
    return len({points_key(e) for e in evaluations}) <= 1


def points_key(evaluation: Evaluation) -> tuple[Any, ...]:
    """Give what is equal where two evaluations judged the same points."""
    record, ids = evaluation.record, aligned(evaluation.points).ids
    return (digest(record.data), record.part, ids.tobytes())


def worst_cases(evaluations: Sequence[Evaluation]) -> list[WorstCase]:
    """Combine evaluations of the same weights, points and threat, where there are two or more."""
    groups: dict[tuple[Any, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        record = evaluation.record
        if math.isfinite(record.threat.eps) and record.valid and not record.separate:
            key = (record.model_hash, record.threat.model(), *points_key(evaluation))
            groups.setdefault(key, []).append(evaluation)
    return [
        WorstCase(tuple(group), worst_case([aligned(e.points) for e in group]))
        for group in groups.values()
        if len(group) > 1
    ]


def curves(evaluations: Sequence[Evaluation]) -> list[Curve]:
    """Give a curve for each attack measured at two or more eps."""
    groups: dict[tuple[str, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        record = evaluation.record
        if record.threat.norm != "none" and record.valid and record.threat.target is None:
            terms = record.threat.model().terms
            limit = str(record.robust.n if record.stopped else record.limit)
            key = (digest(record.attack), record.threat.norm, terms, limit, record.model_hash)
            groups.setdefault(key, []).append(evaluation)
    finite = ([e.record for e in g if math.isfinite(e.record.threat.eps)] for g in groups.values())
    return [
        _curve(sorted(records, key=lambda r: r.threat.eps))
        for records in finite
        if len({r.threat.eps for r in records}) > 1
    ]


def _curve(records: list[EvalRecord]) -> Curve:
    first = records[0]
    measured = {0.0: first.clean} | {r.threat.eps: r.robust for r in records}
    name = attack_name(first) + first.threat.model().terms
    axis = f"{first.threat.norm} perturbation size eps"
    values = tuple(measured.values())
    return Curve(name, options(first.attack), axis, tuple(measured), values)


def smallest_sizes(evaluation: Evaluation) -> NDArray[np.float64]:
    """Give the size that broke each clean-correct point; infinite where none did."""
    import numpy as np

    points = evaluation.points
    sizes = np.where(points.broken_by >= 0, points.sizes, np.inf)
    return sizes[points.broken_by >= -1]


def class_rates(evaluation: Evaluation) -> list[tuple[str, Rate, Rate]]:
    """Give (class, clean, robust) for each class that has points, the least robust first."""
    points = evaluation.points
    found = []
    for label, name in enumerate(evaluation.record.classes):
        here = points.labels == label
        n = int(here.sum())
        if n:
            clean = int((here & (points.broken_by != -2)).sum())
            found.append((name, rate(clean, n), rate(int((here & points.robust).sum()), n)))
    return sorted(found, key=lambda row: row[2].value)


def worst_confusions(evaluation: Evaluation, most: int = 10) -> list[tuple[str, str, int]]:
    """Give (label, prediction, count) of the most frequent adversarial confusions."""
    names, matrix = evaluation.record.classes, evaluation.record.confusion_adversarial
    pairs = (
        (names[i], names[j], count)
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    )
    return sorted(pairs, key=lambda pair: -pair[2])[:most]
