"""A published table made again: its rows trained over seeds, its columns measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from robustkit import tables
from robustkit.catalog import build, installed
from robustkit.engine.craft import craft
from robustkit.engine.evaluate import evaluate
from robustkit.engine.fit import fit
from robustkit.engine.fixed import Fixed
from robustkit.engine.identity import hash_module
from robustkit.engine.loop import Progress
from robustkit.engine.resolve import resolve, start
from robustkit.engine.work import EvalProgress
from robustkit.errors import BadValueError, TrainingStoppedError
from robustkit.interfaces import Images
from robustkit.models.files import load_model
from robustkit.recipe import Recipe
from robustkit.records import EvalRecord, Rate, RunFolder
from robustkit.sets import AdversarialSet
from robustkit.tables import CLEAN, Column, MadeOn, Plan, Row

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

    def craft(self, device: str, progress: EvalProgress) -> None:
        """Make the images of its columns, for every run to be shown; none without a model."""
        if not self.folder.model.exists():
            return
        module, images, origin = self._opened()
        for column in self.columns:
            make = partial(
                craft,
                module,
                images,
                build("attack", column.attack),
                column.threat.model(),
                out=self._images_of(column),
                model_name=str(column.made_on),
                limit=column.limit,
                device=device,
                resume=True,
                progress=progress,
                **origin,
            )
            try:
                make()
            except BadValueError:  # What lies there is of another making; or this comes again.
                make(fresh=True)

    def evaluate(self, device: str, progress: EvalProgress) -> dict[str, Rate]:
        """Measure the columns on the test part; none where training left no model."""
        if not self.folder.model.exists():
            return {}
        module, images, origin = self._opened()
        found: dict[str, EvalRecord] = {}
        for column in self.columns:
            attack, ids = build("attack", column.attack), None
            if column.made_on:
                if not (path := self._images_of(column)).exists():
                    continue
                made = AdversarialSet.read(path)
                attack, ids = Fixed.of(made, images), made.ids
            (found[column.name],) = evaluate(
                module,
                images,
                [attack],
                [column.threat.model()],
                folder=self.folder,
                model_name=str(self.folder.model),
                limit=column.limit,
                ids=ids,
                device=device,
                resume=True,
                progress=progress,
                **origin,
            )
        if not found:
            return {}
        clean = max((record.clean for record in found.values()), key=lambda rate: rate.n)
        return {CLEAN: clean, **{name: record.robust for name, record in found.items()}}

    def _opened(self) -> tuple[nn.Module, Images, dict[str, Any]]:
        """Load the model and the test part, with what records say of them."""
        loaded, dataset = load_model(self.folder.model), build("dataset", self.recipe.data)
        origin = {
            "model_hash": hash_module(loaded.module),
            "data": dataset.dump(),
            "classes": loaded.classes,
            "seed": self.recipe.seed,
        }
        return loaded.module, dataset.split("test"), origin

    def _images_of(self, column: Column) -> Path:
        return self.folder.path.with_name(f"{_slug(column.name)}.npz")


Source = tuple[Job, str]
"""A run that columns are made on, and why its training stopped early."""

Run = tuple[Job, str, dict[str, Rate]]
"""A run, why its training stopped early, and what it withstands by column."""


def planned(name: str) -> Plan:
    """Read the table registered under a name. Raises UnknownNameError."""
    return tables.parse(installed().text("table", name), name)


def jobs(plan: Plan, cut: Cut, out: Path) -> list[Job]:
    """Give the runs that make a table, a seed of all rows before the next seed.

    Raises UnknownNameError for an unknown row, and what `resolve` raises for a setting.
    """
    rows, longest, columns = tables.pick(plan, cut.rows), _longest(plan, cut), columns_of(plan, cut)
    seeds = cut.seeds or plan.seeds
    return [_job(row, seed, cut, longest, out, columns) for seed in seeds for row in rows]


def sources(plan: Plan, cut: Cut, out: Path) -> list[Job]:
    """Give the runs that columns are made on: to be trained, and their images made, before all."""
    columns, rows = columns_of(plan, cut), {row.name: row for row in plan.rows}
    of_run: dict[MadeOn, list[Column]] = {}
    for column in columns:
        if column.made_on:
            of_run.setdefault(column.made_on, []).append(column)
    longest = _longest(plan, cut) if of_run else 0
    return [
        _job(rows[made_on.row], made_on.seed, cut, longest, out, tuple(made))
        for made_on, made in of_run.items()
    ]


def _longest(plan: Plan, cut: Cut) -> int:
    """Give the epochs of the row that is trained longest. Raises BadValueError for a cut above."""
    longest = max(recipe_of(row, 0, cut.settings).fit.epochs for row in plan.rows)
    if cut.epochs is not None and not 1 <= cut.epochs <= longest:
        raise BadValueError(f"--epochs {cut.epochs}: give 1 to {longest}, what the table plans")
    return longest


def _job(
    row: Row, seed: int, cut: Cut, longest: int, out: Path, columns: tuple[Column, ...]
) -> Job:
    recipe = recipe_of(row, seed, cut.settings)
    if cut.epochs is not None:
        epochs = max(1, round(recipe.fit.epochs * cut.epochs / longest))
        recipe, _ = resolve(tables.shortened(recipe.dump(), epochs))
    return Job(row, recipe, RunFolder(out / f"{_slug(row.name)}-seed{seed}"), columns)


def recipe_of(row: Row, seed: int, settings: Settings) -> Recipe:
    """Resolve a row's recipe for a seed, at its full length."""
    return resolve(start(row.recipe), [*row.settings.items(), *settings, ("seed", seed)])[0]


def columns_of(plan: Plan, cut: Cut) -> tuple[Column, ...]:
    """Give the columns, each with the smaller of its own limit and the cut's."""
    limits = [[n for n in (column.limit, cut.limit) if n is not None] for column in plan.columns]
    return tuple(
        column.model_copy(update={"limit": min(known, default=None)})
        for column, known in zip(plan.columns, limits, strict=True)
    )


def _slug(name: str) -> str:
    """Give a name for a folder: letters, digits, points, and dashes for all the rest."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == ".") else " " for c in name.lower())
    return "-".join(kept.split())
