"""Runs side by side: a row a run, a column for each attack and threat."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from robustkit.analysis.statistics import compare as paired
from robustkit.records import Rate, digest
from robustkit.report.accuracies import apart
from robustkit.report.collect import Evaluation, Run
from robustkit.report.measures import aligned, same_points
from robustkit.report.summary import headline
from robustkit.report.words import label, options, percent, told_apart


@dataclass
class Column:
    """One attack at one threat, over the runs that met it."""

    name: str
    options: str
    found: dict[int, Evaluation] = field(default_factory=dict)
    """By the run's place; where several of a run fit, the one of the most points."""

    def cell(self, run: int) -> Rate | None:
        """Give a run's robust accuracy, None where it has none that is valid."""
        return self.found[run].record.robust if run in self.found else None

    @property
    def best(self) -> float:
        """The highest robust accuracy of the runs."""
        return max(evaluation.record.robust.value for evaluation in self.found.values())


@dataclass(frozen=True)
class Comparison:
    """What a table of several runs shows."""

    runs: tuple[Run, ...]
    clean: tuple[Rate | None, ...]
    """Of the evaluation that each run's verdict is about."""
    columns: tuple[Column, ...]
    notes: tuple[str, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side, with what keeps their numbers from being compared.

    Of attacks at many sizes there is a column where they are at the threat of a run's verdict.
    """
    columns: dict[tuple[str, str], Column] = {}
    told = {_key(evaluation) for run in runs for evaluation in apart(run)}
    for i, run in enumerate(runs):
        for evaluation in run.evaluations:
            record, key = evaluation.record, _key(evaluation)
            single = math.isfinite(record.threat.eps) and not record.separate
            untargeted = record.threat.target is None
            if key not in told or not (single and untargeted) or not record.valid:
                continue
            column = columns.setdefault(key, Column(label(record), options(record.attack)))
            known = column.found.get(i)
            if known is None or known.record.robust.n < record.robust.n:
                column.found[i] = evaluation
    ordered = sorted(columns.values(), key=lambda column: (column.name, column.options))
    names = told_apart([(column.name, column.options) for column in ordered])
    for column, name in zip(ordered, names, strict=True):
        column.name = name
    chosen = [headline(run) for run in runs]
    return Comparison(
        runs=tuple(runs),
        clean=tuple(best.record.clean if best else None for best in chosen),
        columns=tuple(ordered),
        notes=tuple(note for column in ordered for note in _notes(runs, column)),
    )


def _key(evaluation: Evaluation) -> tuple[str, str]:
    record = evaluation.record
    return digest([record.attack, record.part]), str(record.threat.model())


def _notes(runs: Sequence[Run], column: Column) -> Iterator[str]:
    found = sorted(column.found.items())
    if not same_points(evaluation for _, evaluation in found):
        yield f"{column.name} was not measured on the same points in every run."
    elif len(found) == 2:
        (i, first), (j, second) = found
        split = paired(aligned(first.points), aligned(second.points))
        yield (
            f"{column.name}: only {runs[i].name} withstands {split.only_first} points, only"
            f" {runs[j].name} {split.only_second} (McNemar's exact test, p = {split.p_value:.2g});"
            f" the difference is {percent(_gap(first, second))}."
        )


def _gap(first: Evaluation, second: Evaluation) -> float:
    return abs(first.record.robust.value - second.record.robust.value)
