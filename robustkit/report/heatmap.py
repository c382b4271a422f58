"""A label metric as a picture."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

from robustkit.errors import BadValueError
from robustkit.files import write_whole
from robustkit.metric import LabelMetric

NAMED = 100
"""Classes that have room for their names; of more, every second, third, ... is named."""
NUMBERED = 12
"""Classes up to which each cell shows its cost."""


def near_together(metric: LabelMetric) -> LabelMetric:
    """Give the metric with its classes in an order in which near ones stand together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(metric.classes) < 3:
        return metric
    tree = linkage(squareform(metric.costs), "average", optimal_ordering=True)
    return metric.reordered([metric.classes[place] for place in leaves_list(tree)])


def draw_metric(metric: LabelMetric, path: Path, title: str = "") -> None:
    """Draw the costs as a heat map, near classes together; the name's ending is the format.

    Raises BadValueError where matplotlib knows no such format or the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    metric = near_together(metric)
    side = min(11.0, 4.5 + 0.09 * len(metric.classes))
    with matplotlib.rc_context({"svg.fonttype": "none", "text.parse_math": False}):
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        _draw(figure.add_subplot(), metric, title)
        kind, image = path.suffix.removeprefix(".") or "png", io.BytesIO()
        if kind not in figure.canvas.get_supported_filetypes():
            raise BadValueError(f"'{path}' is no picture: name it .png, .svg or .pdf")
        figure.savefig(image, format=kind, dpi=150, bbox_inches="tight")
    write_whole(path, lambda file: file.write(image.getvalue()))


def _draw(axes: Any, metric: LabelMetric, title: str) -> None:
    count = len(metric.classes)
    image = axes.imshow(metric.costs, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    step = -(-count // NAMED)
    places, names = range(0, count, step), metric.classes[::step]
    size = max(5.0, min(9.0, 380 / count * step))
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=0)
    axes.set_title(textwrap.fill(title or metric.source, 70), fontsize=9)
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="cost (largest 1)")
    if count <= NUMBERED:
        for (i, j), cost in _cells(metric):
            colour = "white" if cost < 0.55 else "black"
            axes.text(j, i, f"{cost:.2f}", ha="center", va="center", color=colour, fontsize=7)


def _cells(metric: LabelMetric) -> Any:
    import numpy as np

    return np.ndenumerate(metric.costs)
