"""A published table made again: its rows trained over seeds, its columns measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustkit import tables
from robustkit.analysis.statistics import rate
from robustkit.catalog import build, installed
from robustkit.engine.device import pick_device
from robustkit.engine.evaluate import evaluate
from robustkit.engine.fit import fit
from robustkit.engine.identity import hash_module
from robustkit.engine.loop import Progress
from robustkit.engine.provenance import provenance
from robustkit.engine.resolve import resolve, start
from robustkit.engine.work import EvalProgress
from robustkit.errors import BadValueError, TrainingStoppedError
from robustkit.models.files import load_model
from robustkit.recipe import Recipe
from robustkit.records import EvalRecord, Rate, RunFolder
from robustkit.tables import CLEAN, Cell, Column, Plan, Row, TableRecord, TableRow

Settings = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Cut:
    """How much of a table is made: all of it where nothing is said."""

    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    epochs: int | None = None
    """Of the row that is trained longest; the others shrink in proportion."""
    limit: int | None = None
    """Test points under each attack."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Keys set in every row's recipe."""


@dataclass(frozen=True)
class Job:
    """One run of a row: a training, and its evaluations. What is finished is not done again."""

    row: Row
    recipe: Recipe
    folder: RunFolder
    columns: tuple[Column, ...]

    def train(self, device: str, progress: Progress) -> str:
        """Train, or go on; say why training stopped before its end, empty where it did not."""
        try:
            resume = self.folder.recipe.exists()
            return fit(
                self.recipe, self.folder, resume=resume, device=device, progress=progress
            ).stopped
        except TrainingStoppedError as error:
            return str(error)

    def evaluate(self, device: str, progress: EvalProgress) -> dict[str, Rate]:
        """Measure the columns on the test part; none where training left no model."""
        if not self.folder.model.exists():
            return {}
        loaded = load_model(self.folder.model)
        dataset = build("dataset", self.recipe.data)
        images = dataset.split("test")
        found: dict[str, EvalRecord] = {}
        for column in self.columns:
            (found[column.name],) = evaluate(
                loaded.module,
                images,
                [build("attack", column.attack)],
                [column.threat.model()],
                folder=self.folder,
                model_name=str(self.folder.model),
                model_hash=hash_module(loaded.module),
                data=dataset.dump(),
                classes=loaded.classes,
                seed=self.recipe.seed,
                limit=column.limit,
                device=device,
                resume=True,
                progress=progress,
            )
        clean = max((record.clean for record in found.values()), key=lambda rate: rate.n)
        return {CLEAN: clean, **{name: record.robust for name, record in found.items()}}


Run = tuple[Job, str, dict[str, Rate]]
"""A run, why its training stopped early, and what it withstands by column."""


def planned(name: str) -> Plan:
    """Read the table registered under a name. Raises UnknownNameError."""
    return tables.parse(installed().text("table", name), name)


def jobs(plan: Plan, cut: Cut, out: Path) -> list[Job]:
    """Give the runs that make a table, a seed of all rows before the next seed.

    Raises UnknownNameError for an unknown row, and what `resolve` raises for a setting.
    """
    rows = tables.pick(plan, cut.rows)
    full = {row.name: _recipe(row, 0, cut.settings) for row in plan.rows}
    longest = max(recipe.fit.epochs for recipe in full.values())
    if cut.epochs is not None and not 1 <= cut.epochs <= longest:
        raise BadValueError(f"--epochs {cut.epochs}: give 1 to {longest}, what the table plans")
    columns = tuple(_limited(column, cut.limit) for column in plan.columns)
    made = []
    for seed in cut.seeds or plan.seeds:
        for row in rows:
            recipe = _recipe(row, seed, cut.settings)
            if cut.epochs is not None:
                epochs = max(1, round(recipe.fit.epochs * cut.epochs / longest))
                recipe, _ = resolve(tables.shortened(recipe.dump(), epochs))
            folder = RunFolder(out / f"{_slug(row.name)}-seed{seed}")
            made.append(Job(row, recipe, folder, columns))
    return made


def _recipe(row: Row, seed: int, settings: Settings) -> Recipe:
    return resolve(start(row.recipe), [*row.settings.items(), *settings, ("seed", seed)])[0]


def _limited(column: Column, limit: int | None) -> Column:
    known = [n for n in (column.limit, limit) if n is not None]
    return column.model_copy(update={"limit": min(known, default=None)})


def _slug(name: str) -> str:
    """Give a name for a folder: letters, digits, points, and dashes for all the rest."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == ".") else " " for c in name.lower())
    return "-".join(kept.split())


def table(
    name: str,
    plan: Plan,
    cut: Cut,
    runs: Iterable[Run],
    device: str,
    started: str,
) -> TableRecord:
    """Put what runs found beside what was published; `started` comes from provenance.now."""
    by_row: dict[str, list[Run]] = {}
    for run in runs:
        by_row.setdefault(run[0].row.name, []).append(run)
    seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    columns = [CLEAN, *(column.name for column in plan.columns)]
    rows = []
    for row in tables.pick(plan, by_row):
        done = by_row[row.name]
        cells = {column: _cell(row.paper.get(column), column, done) for column in columns}
        stops = [f"seed {job.recipe.seed}: {why}" for job, why, _ in done if why]
        notes = [row.note, *stops] if row.note else stops
        folders = tuple(job.folder.path.name for job, _, _ in done)
        rows.append(TableRow(name=row.name, cells=cells, runs=folders, notes=tuple(notes)))
    return TableRecord(
        name=name,
        title=plan.title,
        source=plan.source,
        rows=tuple(rows),
        cuts=tuple(_cuts(plan, cut, [job for runs in by_row.values() for job, _, _ in runs])),
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
        full, here = _recipe(job.row, 0, cut.settings).fit.epochs, job.recipe.fit.epochs
        if here < full and job.recipe.seed == seeds[0]:
            yield f"{job.row.name}: {here} of {full} epochs"
    for path, value in cut.settings:
        yield f"every recipe has {path} = {value}"
    for column in made[0].columns if made else ():
        if column.limit is not None:
            yield f"{column.name}: the first {column.limit} test points"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
