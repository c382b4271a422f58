"""Reads run folders into what a report shows, and refuses what does not fit together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustkit import recipe
from robustkit.arrays import EvalPoints, Gallery
from robustkit.errors import BadValueError, nearest
from robustkit.records import EpochLine, EvalRecord, RunFolder, RunRecord


@dataclass(frozen=True)
class Evaluation:
    """One attack at one threat: the record, a row a point, and the images to show."""

    record: EvalRecord
    points: EvalPoints
    gallery: Gallery | None = None


@dataclass(frozen=True)
class Run:
    """All that a run folder holds; a folder of evaluations alone has no record and no recipe."""

    folder: RunFolder
    name: str
    """The folder's name, or its path where two runs of a report share one."""
    record: RunRecord | None
    recipe: str
    title: str
    source: str
    epochs: tuple[EpochLine, ...]
    evaluations: tuple[Evaluation, ...]
    unfinished: tuple[str, ...]
    """Evaluations that were begun and have not ended."""


def collect(paths: Sequence[Path]) -> list[Run]:
    """Read run folders, each once, in the order given.

    Raises BadValueError for a folder that is no run and for a file that is damaged.
    """
    folders = list(dict.fromkeys(Path(path) for path in paths))
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names)
    return [
        _read_run(folder, name if unique else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _is_run(path: Path) -> bool:
    folder = RunFolder(path)
    return any(p.exists() for p in (folder.record, folder.recipe, folder.evaluations))


def _read_run(path: Path, name: str) -> Run:
    if not path.is_dir() or not _is_run(path):
        raise BadValueError(f"'{path}' is no run folder{nearest(str(path), _runs_near(path))}")
    folder = RunFolder(path)
    record = RunRecord.read(folder.record) if folder.record.exists() else None
    table = recipe.read(folder.recipe) if folder.recipe.exists() else {}
    title = (record and record.title) or str(table.get("title", "")) or name
    return Run(
        folder=folder,
        name=name,
        record=record,
        recipe=folder.recipe.read_text("utf-8") if table else "",
        title=title,
        source=str(table.get("source", "")),
        epochs=tuple(folder.epochs()),
        evaluations=tuple(sorted(_evaluations(folder), key=_by_threat)),
        unfinished=tuple(sorted(_unfinished(folder))),
    )


def _unfinished(folder: RunFolder) -> Iterator[str]:
    """Give what was broken off; what a limit stopped has a record, which says so."""
    for path in folder.evaluations.glob("*.partial"):
        if not path.with_suffix(".json").exists():
            yield path.stem


def _runs_near(path: Path) -> Iterator[str]:
    for parent in (path, path.parent):
        if parent.is_dir():
            yield from (str(near) for near in parent.iterdir() if near.is_dir() and _is_run(near))
    if _is_run(path.parent):
        yield str(path.parent)


def _evaluations(folder: RunFolder) -> Iterator[Evaluation]:
    for path in sorted(folder.evaluations.glob("*.json")):
        record = EvalRecord.read(path)
        points_path, gallery_path = path.with_suffix(".npz"), folder.gallery(path.stem)
        points = EvalPoints.read(points_path)
        gallery = Gallery.read(gallery_path) if gallery_path.exists() else None
        _check_points(points_path, record, points)
        if gallery and len(gallery.x):
            _check_gallery(gallery_path, record, gallery)
        yield Evaluation(record, points, gallery if gallery and len(gallery.x) else None)


def _by_threat(evaluation: Evaluation) -> tuple[str, str, float, str]:
    threat, attack = evaluation.record.threat, evaluation.record.attack
    return threat.norm, threat.model().terms, threat.eps, str(attack.get("name"))


def _check_points(path: Path, record: EvalRecord, points: EvalPoints) -> None:
    n, classes = record.robust.n, len(record.classes)
    for name, values in vars(points).items():
        if values.shape != (n,) or values.dtype.kind not in "biuf":
            raise damaged(path, f"'{name}' is not a number for each of the record's {n} points")
    for name in ("labels", "clean_predictions", "adversarial_predictions"):
        _check_range(path, name, getattr(points, name), -1, classes)
    _check_range(path, "broken_by", points.broken_by, -3, len(record.parts))
    if int(points.robust.sum()) != record.robust.count:
        raise damaged(
            path, f"it and its record disagree on the {record.robust.count} robust points"
        )
    for matrix in (record.confusion_clean, record.confusion_adversarial):
        if len(matrix) != classes or any(len(row) != classes for row in matrix):
            raise damaged(
                path.with_suffix(".json"), f"a confusion matrix is not of {classes} classes"
            )


def _check_gallery(path: Path, record: EvalRecord, gallery: Gallery) -> None:
    x, n = gallery.x, len(gallery.x)
    if x.ndim != 4 or x.shape != gallery.x_adv.shape or x.dtype.kind != "f":
        raise damaged(path, "its images are not two of one shape for each point")
    if gallery.margins.shape != (n,) or gallery.margins.dtype.kind != "f":
        raise damaged(path, f"'margins' is not a number for each of its {n} images")
    for name in ("labels", "clean_predictions", "adversarial_predictions"):
        values = getattr(gallery, name)
        if values.shape != (n,):
            raise damaged(path, f"'{name}' is not a number for each of its {n} images")
        _check_range(path, name, values, -1, len(record.classes))


def _check_range(path: Path, name: str, values: Any, low: int, high: int) -> None:
    if values.size and not (values.min() >= low and values.max() < high):
        raise damaged(path, f"'{name}' reaches beyond {low} to {high - 1}")


def damaged(path: Path, reason: str) -> BadValueError:
    """Say in a line which file is damaged, and how."""
    return BadValueError(f"'{path}' is damaged: {reason}")
