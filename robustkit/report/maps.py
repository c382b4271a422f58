"""Matrices over pairs of classes as heat maps side by side, as PNG and SVG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustkit.files import write_bytes
from robustkit.report.words import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMED = 60
"""Classes that have room for their names; of more, every second, third, ... is named."""
NUMBERED = 12
"""Classes up to which each cell shows its number, unless it is 0."""
COLOURS = "cividis"
EMPTY = "#d9d9d9"
"""The colour of a cell without a number."""


@dataclass(frozen=True)
class Map:
    """A matrix (K, K) to draw; NaN where there is nothing to show."""

    title: str
    cells: NDArray[np.float64]
    unit: str
    """What its numbers are."""
    top: float | None = None
    """The number of the brightest colour; the largest of all where absent."""
    root: bool = False
    """Whether colours follow the square root, which shows small numbers beside large ones."""


def draw(maps: Sequence[Map], classes: Sequence[str], rows: str, columns: str, stem: Path) -> None:
    """Draw maps over the same classes, as `stem`.png and `stem`.svg.

    `rows` and `columns` say what the two axes are. Raises BadValueError where a file cannot be
    written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    side = min(9.0, 4.6 + 0.06 * len(classes))
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": stem.name,
        "text.parse_math": False,
        "font.size": 9,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(len(maps) * (side + 0.6), side), layout="constrained")
        for axes, each in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
            _draw(axes, each, [plain(name) for name in classes])
            axes.set(xlabel=columns, ylabel=rows)
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            image = io.BytesIO()
            figure.savefig(image, format=kind, dpi=150, metadata=metadata)
            write_bytes(stem.with_name(f"{stem.name}.{kind}"), image.getvalue())


def _draw(axes: Any, each: Map, classes: Sequence[str]) -> None:
    import matplotlib
    import numpy as np
    from matplotlib.colors import PowerNorm

    count, known = len(classes), np.isfinite(each.cells)
    largest = float(each.cells[known].max(initial=0.0))
    scale = PowerNorm(0.5 if each.root else 1.0, 0.0, each.top or largest or 1.0)
    colours = matplotlib.colormaps[COLOURS].with_extremes(bad=EMPTY)
    image = axes.imshow(each.cells, cmap=colours, norm=scale, interpolation="nearest")
    step = -(-count // NAMED)
    size = max(4.5, min(9.0, 330 * step / count))
    axes.set_xticks(range(0, count, step), classes[::step], rotation=90, fontsize=size)
    axes.set_yticks(range(0, count, step), classes[::step], fontsize=size)
    axes.tick_params(length=0)
    axes.set_title(each.title, fontsize=9.5)
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label=each.unit)
    if count <= NUMBERED:
        for (i, j), value in np.ndenumerate(each.cells):
            if known[i, j] and value:
                colour = "white" if scale(value) < 0.55 else "black"
                axes.text(j, i, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)
