"""Accuracies as tables: a line an evaluation, or sizes by attacks where there are many sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustkit.analysis.statistics import rate
from robustkit.records import EvalRecord, Rate, digest
from robustkit.report.collect import Evaluation, Run
from robustkit.report.from_points import spent
from robustkit.report.measures import WorstCase, points_key, worst_cases
from robustkit.report.summary import (
    evaluation_origins,
    headline,
    mean_of_parts,
    reached,
    remarks,
    sizes,
    warnings,
)
from robustkit.report.words import (
    attack_name,
    component,
    listed,
    options,
    points,
    threat_text,
    told_apart,
)
from robustkit.threat import format_eps

MANY = 6
"""Sizes from which on an attack's accuracies stand in a table of sizes."""


@dataclass(frozen=True)
class Row:
    """A line of the table of accuracies: an evaluation, or the worst case over several."""

    attack: str
    options: str
    threat: str
    points: str
    """How many, as "96 of 360" where a limit stopped it."""
    clean: Rate
    robust: Rate | None
    """None where there is no single rate: of smallest perturbations, of parts measured apart, of a
    search for one class."""
    instead: str
    """What is said where there is none."""
    seconds: float | None
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """Attacks at many sizes, or after many queries, on the same points of the same weights.

    Or one attack's parts, where each was measured apart.
    """

    where: str
    """Norm and terms, as "l2, no box"; of parts, their attack."""
    attacks: tuple[tuple[str, str], ...]
    """Name and options of each column."""
    lines: tuple[tuple[str, tuple[Rate | None, ...]], ...]
    """A size, and robust accuracy under each attack; last the worst case, if they are several."""
    evaluations: tuple[Evaluation, ...]
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]
    by: str = "eps"
    """What tells the lines apart: "eps", "queries", or an option of the parts."""

    @property
    def clean(self) -> Rate:
        """Accuracy on the points as they are."""
        return self.evaluations[0].record.clean

    @property
    def spread(self) -> float:
        """The farthest that an interval reaches to either side."""
        rates = [rate for _, cells in self.lines for rate in cells if rate]
        return max(max(rate.high - rate.value, rate.value - rate.low) for rate in rates)

    @property
    def origins(self) -> list[tuple[str, str]]:
        """Where the numbers come from, as (name, value); what differs is listed."""
        found: dict[str, dict[str, None]] = {}
        for evaluation in self.evaluations:
            for name, value in evaluation_origins(evaluation.record):
                found.setdefault(name, {})[value] = None
        return [(name, listed(list(values), "; ")) for name, values in found.items()]


def apart(run: Run) -> list[Evaluation]:
    """Give the evaluations that are told one by one: at few sizes, or where the verdict is."""
    swept = {id(e) for sweep in sweeps(run) for e in sweep.evaluations}
    chosen = headline(run)
    return [
        e
        for e in run.evaluations
        if id(e) not in swept or (chosen and e.record.threat == chosen.record.threat)
    ]


def rows(run: Run) -> list[Row]:
    """Give the table of accuracies: by threat, each evaluation and then the worst case of all."""
    told = apart(run)
    found = [_row(evaluation) for evaluation in told]
    threats = [evaluation.record.threat for evaluation in told]
    for worst in worst_cases(run.evaluations):
        if worst.evaluations[0].record.threat in threats:
            found.append(_worst_row(worst))
    return [row for _, row in sorted(found, key=lambda item: item[0])]


def _order(record: EvalRecord, worst: bool) -> tuple[str, str, float, bool]:
    return record.threat.norm, record.threat.model().terms, record.threat.eps, worst


def _worst_row(worst: WorstCase) -> tuple[tuple[str, str, float, bool], Row]:
    records = [evaluation.record for evaluation in worst.evaluations]
    targeted = records[0].threat.target is not None
    names = ", ".join(attack_name(record) for record in records)
    return _order(records[0], True), Row(
        attack="worst case",
        options=f"robust by all of {names}, on the same points",
        threat=threat_text(records[0].threat),
        points=str(worst.robust.n),
        clean=records[0].clean,
        robust=None if targeted else worst.robust,
        instead=f"reached {reached(records[0], worst.robust)}" if targeted else "",
        seconds=None,
        warnings=(),
        remarks=(),
    )


def _row(evaluation: Evaluation) -> tuple[tuple[str, str, float, bool], Row]:
    record = evaluation.record
    instead = _instead(evaluation)
    return _order(record, False), Row(
        attack=attack_name(record),
        options=options(record.attack),
        threat=threat_text(record.threat),
        points=points(record),
        clean=record.clean,
        robust=None if instead else record.robust,
        instead=instead,
        seconds=sum(part.seconds for part in record.parts),
        warnings=warnings(record),
        remarks=remarks(record),
    )


def _instead(evaluation: Evaluation) -> str:
    """Say what an evaluation found that robust accuracy does not say; else nothing."""
    record = evaluation.record
    if record.separate:
        return mean_of_parts(record)
    if math.isinf(record.threat.eps):
        return sizes(evaluation)
    return f"reached {reached(record)}" if record.threat.target is not None else ""


def sweeps(run: Run) -> list[Sweep]:
    """Give tables of the attacks that were measured at many sizes."""
    groups: dict[tuple[object, ...], dict[str, list[Evaluation]]] = {}
    for evaluation in run.evaluations:
        record = evaluation.record
        if (
            math.isfinite(record.threat.eps)
            and record.threat.norm != "none"
            and record.valid
            and record.threat.target is None
        ):
            place = record.threat.norm, record.threat.model().terms
            key = (*place, record.model_hash, record.seed, *points_key(evaluation))
            attacks = groups.setdefault(key, {})
            attacks.setdefault(digest(record.attack), []).append(evaluation)
    found = ([c for c in attacks.values() if len(c) >= MANY] for attacks in groups.values())
    return [_sweep(columns) for columns in found if columns]


def from_points(run: Run) -> list[Sweep]:
    """Give tables of what single runs say by eps, also at the run's own, or by queries."""
    threat = run.record and run.record.threat
    found = []
    for each in spent(run.evaluations):
        own = threat and each.by == "eps" and threat.norm == each.evaluations[0].record.threat.norm
        limits = each.limits([threat.eps] if threat and own else [])
        found.append(
            Sweep(
                where=each.where,
                attacks=tuple((column.name, column.options) for column in each.columns),
                lines=tuple(
                    (format_eps(s), tuple(column.robust(s) for column in each.columns))
                    for s in limits
                ),
                evaluations=each.evaluations,
                warnings=(),
                remarks=(),
                by=each.by,
            )
        )
    return found


def from_parts(run: Run) -> list[Sweep]:
    """Give tables of attacks whose parts were measured apart: by the options in which they differ.

    Of two such options the first is told by line and the second by column.
    """
    return [_parts_apart(e) for e in run.evaluations if e.record.separate and e.record.valid]


def _parts_apart(evaluation: Evaluation) -> Sweep:
    record = evaluation.record
    tables = [part.options for part in record.parts]
    told = [key for key in tables[0] if len({str(table.get(key)) for table in tables}) > 1]
    line, column = (*told, "", "")[:2] if len(told) <= 2 else ("", "")
    cells: dict[str, dict[str, Rate]] = {}
    for part in record.parts:
        left = rate(record.clean.count - part.broken, record.clean.n)
        name = str(part.options[line]) if line else component(part.options)
        cells.setdefault(name, {})[str(part.options.get(column, ""))] = left
    columns = list(dict.fromkeys(name for rates in cells.values() for name in rates))
    return Sweep(
        where=attack_name(record),
        attacks=tuple((f"{column} {name}".strip() or "Robust", "") for name in columns),
        lines=tuple((name, tuple(map(rates.get, columns))) for name, rates in cells.items()),
        evaluations=(evaluation,),
        warnings=(),
        remarks=(),
        by=line or "part",
    )


def _sweep(columns: Sequence[Sequence[Evaluation]]) -> Sweep:
    evaluations = tuple(evaluation for column in columns for evaluation in column)
    first = [column[0].record for column in columns]
    names = told_apart([(attack_name(r), options(r.attack)) for r in first])
    attacks = [(name, options(r.attack)) for name, r in zip(names, first, strict=True)]
    rates = [{e.record.threat.eps: e.record.robust for e in column} for column in columns]
    worst = {w.evaluations[0].record.threat.eps: w.robust for w in worst_cases(evaluations)}
    if worst:
        attacks.append(("worst case", "robust by all of them"))
        rates.append(worst)
    sizes = sorted({e.record.threat.eps for e in evaluations})
    return Sweep(
        where=first[0].threat.norm + first[0].threat.model().terms,
        attacks=tuple(attacks),
        lines=tuple((format_eps(s), tuple(found.get(s) for found in rates)) for s in sizes),
        evaluations=evaluations,
        warnings=tuple(_noted(names, columns, [[warnings(e.record) for e in c] for c in columns])),
        remarks=tuple(_noted(names, columns, [[remarks(e.record) for e in c] for c in columns])),
    )


def _noted(
    names: Sequence[str],
    columns: Sequence[Sequence[Evaluation]],
    notes: Sequence[Sequence[tuple[str, ...]]],
) -> Iterator[str]:
    """Give each note of an attack once, with the sizes that it is about."""
    for name, column, told in zip(names, columns, notes, strict=True):
        about: dict[str, list[str]] = {}
        for evaluation, texts in zip(column, told, strict=True):
            for text in texts:
                about.setdefault(text, []).append(format_eps(evaluation.record.threat.eps))
        for text, places in about.items():
            at = "" if len(places) == len(column) else f" at {listed(places)}"
            yield f"{name}{at}: {text}"
