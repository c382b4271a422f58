"""robustkit metric: make a label metric, or check and show one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustkit.cli import options
from robustkit.errors import BadValueError

if TYPE_CHECKING:
    from robustkit.interfaces import Images
    from robustkit.metric import LabelMetric

SHOWN = 5
"""Pairs of classes that a summary names at either end."""


class Kind(StrEnum):
    """What is measured in WordNet."""

    lca = "lca"
    path = "path"


def metric(
    name: Annotated[
        str, typer.Argument(help="A CSV file, or a metric that comes along; a list if absent.")
    ] = "",
    wordnet: Annotated[
        Path | None,
        typer.Option("--wordnet", help="Make one from class names and WordNet's folder dict."),
    ] = None,
    linear: Annotated[
        bool,
        typer.Option("--linear", help="Make one: distances to a linear classifier's boundaries."),
    ] = False,
    confusion: Annotated[
        Path | None,
        typer.Option(
            "--confusion", help="Make one from an evaluation's errors: its .json, or a run folder."
        ),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Of --confusion: the errors without an attack.")
    ] = False,
    kind: Annotated[
        Kind,
        typer.Option("--kind", help="Of --wordnet: height of the common hypernym, or path length."),
    ] = Kind.lca,
    dataset: options.Dataset = "",
    path: options.DataPath = "",
    classes: Annotated[
        str,
        typer.Option(
            "--classes",
            help="Class names, as cat,dog; for --wordnet also crab#5 (its fifth sense), or"
            " aquarium_fish=goldfish.",
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=2, help="Of --linear: training points.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of --linear: which points.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="CSV to write.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Heat map to write: .png, .svg, .pdf.")
    ] = None,
) -> None:
    """Make a label metric, or check and show one: symmetric, zero diagonal, largest cost 1."""
    named = options.split_list(classes)
    if sum(map(bool, (name, wordnet, linear, confusion))) > 1:
        raise BadValueError("name one of: a metric, --wordnet, --linear, --confusion")
    if wordnet:
        found = _of_wordnet(wordnet, kind, dataset, path, named)
    elif linear:
        found = _of_pixels(dataset, path, classes, limit, seed)
    elif confusion:
        found = _of_errors(confusion, clean)
    elif name:
        from robustkit.metric import find_metric

        found = find_metric(name)
    else:
        return _list()
    if not wordnet and not linear and (named or dataset):
        found = found.reordered(named or _classes(dataset, path))
    _show(found)
    if out:
        found.write(out)
        print(f"wrote {out}")
    if plot:
        from robustkit.report.maps import draw_metric

        draw_metric(found, plot)
        print(f"wrote {plot}")
    return None


def _of_wordnet(folder: Path, kind: Kind, dataset: str, path: str, named: list[str]) -> LabelMetric:
    from robustkit.wordnet import WordNet, known_senses, parse_senses, wordnet_metric

    known = known_senses(dataset)
    senses = parse_senses(named or known or (_classes(dataset, path) if dataset else ()))
    senses = {
        name: known.get(name, sense) if sense == name else sense for name, sense in senses.items()
    }
    if not senses:
        raise BadValueError("--wordnet needs class names: give --classes cat,dog or --dataset NAME")
    read = WordNet(folder)
    found = wordnet_metric(read, senses, kind.value)
    width = max(map(len, senses))
    for name, sense in senses.items():
        print(f"{name:<{width}}  {read.gloss(read.synset(sense))}")
    return found


def _of_pixels(dataset: str, path: str, classes: str, limit: int, seed: int) -> LabelMetric:
    from robustkit.analysis.label_metrics import linear_metric

    if not dataset:
        raise BadValueError("--linear needs the data: give --dataset NAME")
    return linear_metric(_training_part(dataset, path, classes), dataset, limit, seed)


def _of_errors(place: Path, clean: bool) -> LabelMetric:
    """Make the metric of an evaluation's record; a folder's, where it holds one only."""
    from robustkit.analysis.label_metrics import confusion_metric
    from robustkit.records import EvalRecord, RunFolder

    if place.is_dir():
        held = sorted(RunFolder(place).evaluations.glob("*.json"))
        if len(held) != 1:
            names = ", ".join(f"eval/{file.name}" for file in held[:4])
            which = f"name one of {names}" if held else "run robustkit eval first"
            raise BadValueError(f"'{place}' has {len(held)} evaluations: {which}")
        place = held[0]
    record = EvalRecord.read(place)
    counts = record.confusion_clean if clean else record.confusion_adversarial
    which = "clean errors" if clean else f"errors under {record.attack.get('name')}"
    source = f"{which} of {record.model} on {record.clean.n} points"
    return confusion_metric(record.classes, counts, source)


def _training_part(dataset: str, path: str, classes: str) -> Images:
    from robustkit.catalog import build
    from robustkit.recipe import override

    table = override({}, options.data_settings(dataset, path))
    table, _ = options.narrowed(table, [], classes, None)
    return build("dataset", table["data"]).split("train")


def _classes(dataset: str, path: str) -> tuple[str, ...]:
    """Give a data set's class names, without its files where they are known anyway."""
    from robustkit.wordnet import known_senses

    return tuple(known_senses(dataset)) or _training_part(dataset, path, "").classes


def _list() -> None:
    from robustkit.metric import LabelMetric, shipped

    for name, file in shipped().items():
        found = LabelMetric.read(file)
        print(f"{name:<28} {len(found.classes):>3} classes  {found.source}")


def _show(metric: LabelMetric) -> None:
    import numpy as np

    upper = np.triu_indices(len(metric.classes), 1)
    costs = metric.costs[upper]
    print(f"{len(metric.classes)} classes: {', '.join(metric.classes)}")
    if metric.source:
        print(f"source: {metric.source}")
    print(f"costs: {costs.min():.4g} to 1, mean {costs.mean():.4g}")
    for word, places in (
        ("nearest", np.argsort(costs, kind="stable")),
        ("farthest", np.argsort(-costs, kind="stable")),
    ):
        pairs = ((metric.classes[upper[0][k]], metric.classes[upper[1][k]], k) for k in places)
        shown = [f"{a} and {b} {costs[k]:.4g}" for a, b, k in list(pairs)[:SHOWN]]
        print(f"{word}: {', '.join(shown)}")
