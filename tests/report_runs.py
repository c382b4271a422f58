"""Run folders written by hand: what training and evaluations of digits leave behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustkit import recipe
from robustkit.analysis.statistics import rate
from robustkit.arrays import EvalPoints, Gallery
from robustkit.records import (
    EpochLine,
    EvalRecord,
    PartRecord,
    Provenance,
    RunFolder,
    RunRecord,
    Threat,
)

DIGITS = tuple(str(digit) for digit in range(10))
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
ORIGIN = Provenance(
    versions={"robustkit": "0.1.0", "python": "3.11.9", "torch": "2.15.0"},
    device="cpu (x86_64)",
    commit="0123456789ab",
    command="robustkit train --plugin policy-gradient --dataset digits",
    started="2026-05-04T09:12:00+00:00",
    seconds=83.4,
)


def write_run(
    path: Path, *, epochs: int = 8, title: str = "Policy gradient on digits", **changes: Any
) -> RunFolder:
    """Write a training: recipe, metrics and record."""
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    table = {"title": title, "source": "Kim 2023, table 2", "trainer": {"name": "adversarial"}}
    folder.recipe.write_text(recipe.write(recipe.validate(table)))
    lines = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-epoch / 3)
        line = EpochLine(
            epoch=epoch,
            step=epoch * 11,
            lr=0.05 * (1 + math.cos(math.pi * epoch / epochs)),
            loss=2.3 - 1.9 * done,
            train_accuracy=0.1 + 0.82 * done,
            heldout_accuracy=0.1 + 0.85 * done,
            heldout_adversarial=0.08 + 0.6 * done if epoch % 2 == 0 else None,
            heldout_loss=2.2 - 1.6 * done,
            seconds=4.2,
        )
        lines.append(line.model_dump_json() + "\n")
    folder.metrics.write_text("".join(lines))
    record = {
        "name": path.name,
        "title": title,
        "trainer": {"name": "adversarial", "attack": {"name": "pgd", "steps": 10}},
        "model": {"name": "cnn", "width": 16},
        "data": {"name": "digits"},
        "threat": Threat(norm="linf", eps=0.1),
        "seed": 3,
        "classes": DIGITS,
        "shape": (1, 8, 8),
        "parameters": 27_882,
        "n_train": 1294,
        "n_heldout": 143,
        "epochs": epochs,
        "epochs_done": epochs,
        "best_epoch": epochs,
        "selected_by": "adversarial accuracy under pgd",
        "heldout_clean": rate(134, 143),
        "heldout_adversarial": rate(91, 143),
        "finished": True,
        "provenance": ORIGIN,
    }
    RunRecord.model_validate(record | changes).write(folder.record)
    return folder


def write_eval(
    folder: RunFolder,
    attack: str = "autoattack",
    norm: str = "linf",
    eps: float = 0.1,
    *,
    parts: Sequence[str] = AUTOATTACK,
    n: int = 360,
    seed: int = 0,
    clean_share: float = 0.94,
    strength: float = 1.0,
    classes: Sequence[str] = DIGITS,
    images: NDArray[np.float32] | None = None,
    shown: int = 8,
    hash: str = "0123abcd",
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[EvalRecord, EvalPoints]:
    """Write an evaluation whose points are more robust at a smaller eps, alike under each attack."""
    pick = np.random.default_rng(seed)
    c = len(classes)
    labels = pick.integers(0, c, n)
    other = (labels + 1 + pick.integers(0, max(c - 1, 1), n)) % c
    clean_right = pick.random(n) < clean_share
    need = pick.exponential(0.25, n) + 0.01
    broken = clean_right & (need <= eps * strength)
    part = np.minimum(pick.geometric(0.6, n) - 1, len(parts) - 1)
    points = EvalPoints(
        ids=pick.permutation(n),
        labels=labels,
        clean_predictions=np.where(clean_right, labels, other),
        adversarial_predictions=np.where(clean_right & ~broken, labels, other),
        robust=clean_right & ~broken,
        broken_by=np.where(broken, part, np.where(clean_right, -1, -2)),
        sizes=np.where(broken, need if math.isinf(eps) or norm != "linf" else eps, np.nan),
        forwards=np.full(n, 700.0),
        backwards=np.full(n, 690.0),
    )
    record = EvalRecord.model_validate(
        {
            "hash": hash,
            "model": str(folder.model),
            "model_hash": "feedbeef",
            "attack": {"name": attack, **(options or {})},
            "threat": Threat(norm=norm, eps=eps),
            "seed": seed,
            "data": {"name": "digits"},
            "classes": tuple(classes),
            "clean": rate(int(clean_right.sum()), n),
            "robust": rate(int(points.robust.sum()), n),
            "parts": _parts(parts, points, math.isinf(eps)),
            "confusion_clean": confusion(labels, points.clean_predictions, c),
            "confusion_adversarial": confusion(labels, points.adversarial_predictions, c),
            "provenance": ORIGIN,
        }
        | changes
    )
    record.write(folder.evaluations / f"{record.stem}.json")
    points.write(folder.evaluations / f"{record.stem}.npz")
    if shown:
        _write_gallery(folder, record, points, digit_images() if images is None else images, shown)
    return record, points


def _parts(names: Sequence[str], points: EvalPoints, smallest: bool) -> tuple[PartRecord, ...]:
    left, found = int((points.broken_by != -2).sum()), []
    for i, name in enumerate(names):
        broken = int((points.broken_by == i).sum())
        found.append(
            PartRecord(
                name=name,
                options={"name": name, "steps": 100, "restarts": 1},
                attacked=left,
                broken=broken,
                seconds=3.25,
                forwards=100.0 * left,
                backwards=0.0 if name == "square" else 100.0 * left,
            )
        )
        left -= 0 if smallest else broken
    return tuple(found)


def _write_gallery(
    folder: RunFolder, record: EvalRecord, points: EvalPoints, x: NDArray[np.float32], shown: int
) -> None:
    pick = np.random.default_rng(1)
    x = x[np.arange(shown) % len(x)]
    size = record.threat.eps if math.isfinite(record.threat.eps) else 0.15
    x_adv = np.clip(x + size * pick.choice([-1.0, 1.0], x.shape), 0, 1).astype(np.float32)
    rows = np.flatnonzero(points.broken_by != -2)[:shown]
    rows = np.resize(rows, shown) if rows.size else np.zeros(shown, np.int64)
    Gallery(
        ids=points.ids[rows],
        x=x,
        x_adv=x_adv,
        labels=points.labels[rows],
        clean_predictions=points.clean_predictions[rows],
        adversarial_predictions=points.adversarial_predictions[rows],
    ).write(folder.gallery(record.stem))


@cache
def digit_images() -> NDArray[np.float32]:
    """Give scikit-learn's digits (1797, 1, 8, 8) in [0, 1]."""
    from sklearn.datasets import load_digits

    return (load_digits().images[:, None] / 16).astype(np.float32)


def confusion(labels: Any, predictions: Any, classes: int) -> tuple[tuple[int, ...], ...]:
    """Count labels (rows) by predictions (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return tuple(tuple(row) for row in counts.tolist())


def write_digits(path: Path, **changes: Any) -> RunFolder:
    """Write a whole run: a training, autoattack and pgd at three eps, and smallest ones in l2."""
    folder = write_run(path, **changes)
    for eps in (0.05, 0.1, 0.2):
        write_eval(folder, eps=eps)
    for eps in (0.05, 0.1, 0.2):
        write_eval(
            folder,
            "pgd",
            eps=eps,
            parts=["pgd"],
            strength=0.9,
            options={"steps": 40, "restarts": 5},
            warnings=("gradient masking: square broke 9 points that pgd could not",)
            if eps == 0.1
            else (),
            remarks=("5 restarts of 40 steps",) if eps == 0.1 else (),
        )
    write_eval(folder, "fab-t", "l2", math.inf, parts=["fab-t"])
    return folder
