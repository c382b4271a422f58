"""What the runs of a published table found, put beside what was published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from robustkit import tables
from robustkit.analysis.statistics import rate
from robustkit.engine.device import pick_device
from robustkit.engine.provenance import provenance
from robustkit.engine.reproduce import Cut, Job, Run, Source, columns_of, recipe_of
from robustkit.records import Threat
from robustkit.tables import CLEAN, Cell, Column, Plan, TableColumn, TableRecord, TableRow


def table(
    name: str,
    plan: Plan,
    cut: Cut,
    runs: Iterable[Run],
    device: str,
    started: str,
    made_on: Iterable[Source] = (),
) -> TableRecord:
    """Put what runs found beside what was published; `started` comes from provenance.now."""
    by_row: dict[str, list[Run]] = {}
    for run in runs:
        by_row.setdefault(run[0].row.name, []).append(run)
    seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    columns = columns_of(plan, cut)
    names = [CLEAN, *(column.name for column in columns)]
    rows = []
    for row in tables.pick(plan, by_row):
        done = by_row[row.name]
        cells = {column: _cell(row.paper.get(column), column, done) for column in names}
        stops = [f"seed {job.recipe.seed}: {why}" for job, why, _ in done if why]
        notes = [row.note, *stops] if row.note else stops
        folders = tuple(job.folder.path.name for job, _, _ in done)
        rows.append(TableRow(name=row.name, cells=cells, runs=folders, notes=tuple(notes)))
    return TableRecord(
        name=name,
        title=plan.title,
        source=plan.source,
        columns=tuple(map(_described, columns)),
        rows=tuple(rows),
        cuts=(
            *_cuts(plan, cut, [job for runs in by_row.values() for job, _, _ in runs]),
            *_cuts_of_sources(made_on, cut),
        ),
        provenance=provenance(pick_device(device), started, seconds),
    )


def _cell(paper: float | None, column: str, runs: Sequence[Run]) -> Cell:
    """Give the mean over seeds, with the interval of that share at the seeds' common points."""
    seeds = {job.recipe.seed: rates[column] for job, _, rates in runs if column in rates}
    mean = None
    if seeds:
        n = min(found.n for found in seeds.values())
        mean = rate(round(n * sum(found.value for found in seeds.values()) / len(seeds)), n)
    return Cell(paper=None if paper is None else paper / 100, ours=mean, seeds=seeds)


def _cuts(plan: Plan, cut: Cut, made: Sequence[Job]) -> Iterator[str]:
    """Say in what the table is less than the one that was published."""
    names = list(dict.fromkeys(job.row.name for job in made))
    if len(names) < len(plan.rows):
        yield f"{len(names)} of {len(plan.rows)} rows"
    seeds = list(dict.fromkeys(job.recipe.seed for job in made))
    if not set(plan.seeds) <= set(seeds):
        yield f"seeds {_listed(seeds)} instead of {_listed(plan.seeds)}"
    for job in made:
        full, here = recipe_of(job.row, 0, cut.settings).fit.epochs, job.recipe.fit.epochs
        if here < full and job.recipe.seed == seeds[0]:
            yield f"{job.row.name}: {here} of {full} epochs"
    for path, value in cut.settings:
        yield f"every recipe has {path} = {value}"
    for column in made[0].columns if made else ():
        if column.limit is not None:
            yield f"{column.name}: the first {column.limit} test points"


def _cuts_of_sources(made_on: Iterable[Source], cut: Cut) -> Iterator[str]:
    """Say in what the runs that columns are made on are less than planned."""
    for job, stopped in made_on:
        full, here = recipe_of(job.row, 0, cut.settings).fit.epochs, job.recipe.fit.epochs
        for column in job.columns:
            if here < full:
                yield f"{column.name}: made on {column.made_on}, after {here} of {full} epochs"
            if stopped:
                yield f"{column.name}: made on {column.made_on}: {stopped}"


def _described(column: Column) -> TableColumn:
    return TableColumn(
        name=column.name,
        attack=column.attack,
        threat=Threat.of(column.threat.model()),
        limit=column.limit,
        made_on=str(column.made_on or ""),
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
