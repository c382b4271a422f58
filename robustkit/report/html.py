"""Runs as one HTML file that needs no network: figures and images inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustkit import __version__
from robustkit.report import accuracies, analysed, costs, images, plots, summary, words
from robustkit.report.collect import Evaluation, Run
from robustkit.report.comparison import compare
from robustkit.report.from_points import spent
from robustkit.report.measures import Curve, class_rates, curves, worst_confusions

FEW_CLASSES = 20
"""Up to here a confusion matrix shows its counts, and a chart every class."""


@dataclass(frozen=True)
class Figure:
    """A chart and what it shows in words."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: cells and their share of a row in percent, or a heat map if large."""

    title: str
    rows: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    image: str
    points: int
    named: bool
    """Whether names are too long to stand upright over their columns."""


def render(runs: Sequence[Run]) -> str:
    """Write a report of one run, or of several side by side, as one HTML file of its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "interval": words.interval,
        "duration": words.duration,
        "plain": words.plain,
        "points": words.points,
    }
    together = [(run, curve) for run in runs for curve in _curves(run)]
    galleries = sum(e.gallery is not None for run in runs for e in accuracies.apart(run))
    return environment.get_template("template.html").render(
        title=runs[0].title if len(runs) == 1 else f"{len(runs)} runs compared",
        version=__version__,
        comparison=compare(runs) if len(runs) > 1 else None,
        overlay=list(_charts(together, len(runs))) if len(runs) > 1 else [],
        runs=[_run(run, galleries) for run in runs],
    )


def _run(run: Run, galleries: int) -> dict[str, Any]:
    best = summary.headline(run)
    shown, unshown = analysed.analysed(run)
    return {
        "run": run,
        "verdict": summary.verdict(run),
        "notices": summary.notices(run),
        "facts": summary.facts(run),
        "rows": accuracies.rows(run),
        "costs": list(costs.rows(run)),
        "cost_caption": costs.CAPTION,
        "analyses": shown,
        "unshown": unshown,
        "charts": list(_charts([(run, curve) for curve in _curves(run)], 1)),
        "sweeps": [*accuracies.sweeps(run), *accuracies.from_points(run)],
        "by_part": accuracies.from_parts(run),
        "training": list(_training(run)),
        "epochs": run.epochs,
        "evaluations": [_evaluation(e, e is best, galleries) for e in accuracies.apart(run)],
    }


def _evaluation(evaluation: Evaluation, is_best: bool, galleries: int) -> dict[str, Any]:
    record, gallery = evaluation.record, evaluation.gallery
    return {
        "record": record,
        "label": words.label(record),
        "open": is_best,
        "result": summary.result(evaluation),
        "warnings": summary.warnings(record),
        "remarks": summary.remarks(record),
        "parts": summary.parts(evaluation),
        "examples": images.examples(evaluation, gallery, galleries) if gallery else None,
        "closest": images.closest(evaluation, gallery, galleries) if gallery else None,
        "margin": "the lead of the label's logit over the largest other that was left"
        if record.threat.target is None
        else "the lead of the largest other logit over the target's that was left",
        "matrices": list(_matrices(evaluation)),
        "confusions": worst_confusions(evaluation) if len(record.classes) > FEW_CLASSES else [],
        "figures": list(_figures(evaluation)),
        "origins": summary.evaluation_origins(record),
    }


def _curves(run: Run) -> list[Curve]:
    """Give what was measured at several sizes, and then what follows from single runs."""
    single = (curve for each in spent(run.evaluations) for curve in each.curves())
    return [*curves(run.evaluations), *single]


def _charts(found: Sequence[tuple[Run, Curve]], runs: int) -> Iterator[Figure]:
    """Draw robust accuracy by size or queries: of one run's curves, or of those of several runs."""
    for (axis, *attack), group in _together(found, runs).items():
        if len({run.name for run, _ in group}) < min(runs, 2):
            continue
        whose = [
            f"{run.name}, {curve.attack}" if runs > 1 else curve.attack for run, curve in group
        ]
        names = words.told_apart(
            [(name, curve.options) for name, (_, curve) in zip(whose, group, strict=True)]
        )
        if attack:
            names = [run.name for run, _ in group]
        curves = [curve for _, curve in group]
        sizes = sorted({rate.n for curve in curves for rate in curve.rates})
        minimal = any(curve.minimal for curve in curves)
        yield Figure(
            plots.robustness(list(zip(names, curves, strict=True))),
            f"Robust accuracy by {axis}"
            f"{f' under {attack[0]}' if attack else ''}, from the clean accuracy at 0, on"
            f" {_range(sizes)} points; the bands are 95 % intervals."
            + (" Steps follow from what it took to break each point." if minimal else ""),
        )


def _together(
    found: Sequence[tuple[Run, Curve]], runs: int
) -> dict[tuple[str, ...], list[tuple[Run, Curve]]]:
    """Sort curves into charts: by axis, and by attack where several runs' would be too many."""
    groups: dict[tuple[str, ...], list[tuple[Run, Curve]]] = {}
    for run, curve in found:
        many = sum(other.axis == curve.axis for _, other in found) > plots.DISTINCT
        of_attack = (curve.attack, curve.options) if runs > 1 and many else ()
        groups.setdefault((curve.axis, *of_attack), []).append((run, curve))
    return groups


def _range(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _training(run: Run) -> Iterator[Figure]:
    record, epochs = run.record, run.epochs
    if not epochs:
        return
    best = record.best_epoch if record else None
    n_train = f"{record.n_train:,} training" if record else "the training"
    n_heldout = f"{record.n_heldout:,} held-out" if record else "the held-out"
    kept = f" The dotted line marks epoch {best}, whose weights were kept." if best else ""
    yield Figure(
        plots.accuracy_by_epoch(epochs, best),
        f"Accuracy by epoch on {n_train} and {n_heldout} points. Training accuracy is of the points"
        f" as trained on, adversarial where training is, while the weights move.{kept}",
    )
    yield Figure(
        plots.gap_by_epoch(epochs, best),
        "Generalisation gap by epoch: training accuracy less held-out accuracy. Where training is"
        " adversarial, compare it with the held-out adversarial accuracy.",
    )
    yield Figure(
        plots.loss_by_epoch(epochs, best),
        "Mean loss by epoch: the trainer's own in training, cross-entropy on clean held-out points;"
        " where the two are different losses only their trends compare.",
    )
    yield Figure(plots.rate_by_epoch(epochs, best), "Learning rate by epoch.")


def _figures(evaluation: Evaluation) -> Iterator[Figure]:
    record, by_class = evaluation.record, class_rates(evaluation)
    shown = by_class[:FEW_CLASSES]
    n = record.robust.n
    if len(shown) > 1 and math.isfinite(record.threat.eps) and record.threat.target is None:
        chosen = "each class"
        if len(by_class) > len(shown):
            chosen = f"the {len(shown)} least robust of {len(by_class)} classes"
        yield Figure(
            plots.by_class(shown),
            f"Clean and robust accuracy of {chosen}, the least robust on top;"
            f" {n} points in all, lines are 95 % intervals.",
        )
    if len(record.parts) > 1 and not record.separate:
        yield Figure(
            plots.breakers(evaluation),
            f"What became of the {n} points: each part attacks only what the earlier ones left.",
        )
    if _sizes_vary(evaluation):
        yield Figure(
            plots.sizes(evaluation),
            f"Sizes of the perturbations that broke {sum(p.broken for p in record.parts)} points.",
        )


def _sizes_vary(evaluation: Evaluation) -> bool:
    """Say whether sizes differ enough that their histogram says something."""
    import numpy as np

    sizes = evaluation.points.sizes[np.isfinite(evaluation.points.sizes)]
    if sizes.size < 10:
        return False
    low, high = np.quantile(sizes, [0.05, 0.95])
    return bool(high - low > 0.1 * high)


def _matrices(evaluation: Evaluation) -> Iterator[Matrix]:
    import numpy as np

    record = evaluation.record
    names = [words.plain(name) for name in record.classes]
    for title, counts in (
        ("Clean", record.confusion_clean),
        ("Adversarial", record.confusion_adversarial),
    ):
        matrix = np.asarray(counts, dtype=np.int64)
        few = len(names) <= FEW_CLASSES
        yield Matrix(
            title,
            tuple(
                (name, tuple((count, 100 * count / max(sum(row), 1)) for count in row))
                for name, row in zip(names, counts, strict=True)
            )
            if few
            else (),
            "" if few else images.heat_map(matrix),
            int(matrix.sum()),
            max(map(len, names)) > 3,
        )
