"""Charts as inline SVG that follows the page's colours."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustkit.records import EpochLine, Rate
from robustkit.report.collect import Evaluation
from robustkit.report.measures import Curve, smallest_sizes
from robustkit.report.words import plain

# matplotlib knows no CSS variables: each is drawn in a colour that nothing else has, then renamed.
COLOURS = {
    name: f"#0101{i:02x}"
    for i, name in enumerate(["ink", "muted", "line", "s1", "s2", "s3", "s4", "s5", "s6"], 1)
}
SERIES = [COLOURS[f"s{i}"] for i in range(1, 7)]
DISTINCT = len(SERIES)
"""Lines that a chart can show without two alike."""
MARKERS = "osD^vP"
STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))]
RC: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}
DENSE = 12
"""Points from which on a curve's line alone says more than with markers."""
_salts = itertools.count()
Series = Mapping[str, Sequence[float | None]]


def _svg(draw: Callable[[Any], None], height: float = 3.1) -> str:
    """Draw one chart of 5 inches' width; the page scales it."""
    import matplotlib
    from matplotlib.figure import Figure

    # Ids must differ between the charts of a page: a clip path of a folded one clips nothing.
    with matplotlib.rc_context(RC | {"svg.hashsalt": str(next(_salts))}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(5, height), layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue())


def _inline(svg: str) -> str:
    """Keep what a page needs of matplotlib's SVG, in the page's fonts and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href", "href")
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", svg)


def _legend(axes: Any, columns: int = 3) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def _percent_axis(axes: Any, top: float = 1.0) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, top * 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _lines(
    axes: Any,
    epochs: Sequence[EpochLine],
    series: Series,
    best: int | None,
) -> None:
    """Draw series by epoch, absent values left out, and mark the epoch whose weights were kept."""
    from matplotlib.ticker import MaxNLocator

    for i, (name, values) in enumerate(series.items()):
        known = [(e.epoch, v) for e, v in zip(epochs, values, strict=True) if v is not None]
        if known:
            marker = MARKERS[i] if len(known) <= 30 else ""
            axes.plot(*zip(*known, strict=True), STYLES[i], marker=marker, c=SERIES[i], label=name)
    if best is not None:
        axes.axvline(best, color=COLOURS["muted"], lw=1.4, ls=(0, (1, 2)), label="weights kept")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, 2)


def accuracy_by_epoch(epochs: Sequence[EpochLine], best: int | None) -> str:
    """Draw training, held-out and held-out adversarial accuracy by epoch."""

    def draw(axes: Any) -> None:
        series: Series = {
            "training": [e.train_accuracy for e in epochs],
            "held-out": [e.heldout_accuracy for e in epochs],
            "held-out, adversarial": [e.heldout_adversarial for e in epochs],
        }
        _lines(axes, epochs, series, best)
        _percent_axis(axes)

    return _svg(draw)


def gap_by_epoch(epochs: Sequence[EpochLine], best: int | None) -> str:
    """Draw training accuracy less held-out accuracy, in percentage points, by epoch."""

    def gap(train: float | None, heldout: float | None) -> float | None:
        return None if train is None or heldout is None else 100 * (train - heldout)

    def draw(axes: Any) -> None:
        series = {
            "training − held-out": [gap(e.train_accuracy, e.heldout_accuracy) for e in epochs],
            "training − held-out adversarial": [
                gap(e.train_accuracy, e.heldout_adversarial) for e in epochs
            ],
        }
        axes.axhline(0, color=COLOURS["muted"], lw=0.8)
        _lines(axes, epochs, series, best)
        axes.set_ylabel("percentage points")

    return _svg(draw)


def loss_by_epoch(epochs: Sequence[EpochLine], best: int | None) -> str:
    """Draw training and held-out loss by epoch."""

    def draw(axes: Any) -> None:
        series: Series = {
            "training": [e.loss for e in epochs],
            "held-out": [e.heldout_loss for e in epochs],
        }
        _lines(axes, epochs, series, best)
        axes.set_ylabel("mean loss")

    return _svg(draw)


def rate_by_epoch(epochs: Sequence[EpochLine], best: int | None) -> str:
    """Draw the learning rate by epoch."""

    def draw(axes: Any) -> None:
        _lines(axes, epochs, {"learning rate": [e.lr for e in epochs]}, best)
        axes.set_ylim(bottom=0)

    return _svg(draw)


def robustness(curves: Sequence[tuple[str, Curve]]) -> str:
    """Draw named curves of one axis with their 95 % bands."""

    def draw(axes: Any) -> None:
        for i, (name, curve) in enumerate(curves):
            # After six, colours come again with other dashes.
            colour, style = SERIES[i % 6], STYLES[(i + i // 6) % 6]
            low, high = [r.low for r in curve.rates], [r.high for r in curve.rates]
            values = [r.value for r in curve.rates]
            marker = "" if len(curve.at) > DENSE else MARKERS[i % 6]
            step = "post" if curve.minimal else None
            axes.fill_between(curve.at, low, high, color=colour, alpha=0.16, lw=0, step=step)
            draw_style = "steps-post" if curve.minimal else "default"
            axes.plot(
                curve.at,
                values,
                ls=style,
                marker=marker,
                c=colour,
                label=name,
                drawstyle=draw_style,
            )
        axes.set_xlabel(curves[0][1].axis)
        axes.set_xlim(left=0)
        _percent_axis(axes)
        _legend(axes, 2)

    return _svg(draw, 3.1 + 0.1 * len(curves))


def by_class(rows: Sequence[tuple[str, Rate, Rate]]) -> str:
    """Draw clean and robust accuracy of each class with 95 % intervals, the least robust on top."""

    def draw(axes: Any) -> None:
        columns = {"clean": [row[1] for row in rows], "robust": [row[2] for row in rows]}
        for i, (name, rates) in enumerate(columns.items()):
            values = [rate.value for rate in rates]
            spread = [
                [rate.value - rate.low for rate in rates],
                [rate.high - rate.value for rate in rates],
            ]
            places = [k + 0.16 * (2 * i - 1) for k in range(len(rows))]
            axes.errorbar(
                values, places, xerr=spread, fmt=MARKERS[i], c=SERIES[i], lw=1, label=name
            )
        axes.set_yticks(range(len(rows)), [_short(row[0]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        _percent_across(axes)
        _legend(axes)

    return _svg(draw, 0.9 + 0.27 * len(rows))


def breakers(evaluation: Evaluation) -> str:
    """Draw how many points were wrong when clean, broken by each part, and robust."""
    record = evaluation.record
    names = ["wrong when clean", *(f"broken by {_short(p.name)}" for p in record.parts), "robust"]
    counts = [record.clean.n - record.clean.count, *(p.broken for p in record.parts)]
    counts.append(record.robust.count)
    if record.threat.target is not None:
        names = [name.replace("broken by", "made into it by") for name in names[:-1]]
        names.append("not made into the target")
    colours = [COLOURS["muted"], *[SERIES[1]] * len(record.parts), SERIES[0]]

    def draw(axes: Any) -> None:
        bars = axes.barh(range(len(names)), counts, color=colours, height=0.66)
        share = [f"{c} ({100 * c / record.clean.n if record.clean.n else 0:.1f} %)" for c in counts]
        axes.bar_label(bars, share, color=COLOURS["ink"], fontsize=8.5, padding=4)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, max(*counts, 1) * 1.25)
        axes.set_xlabel("points")
        axes.grid(axis="y", visible=False)

    return _svg(draw, 0.7 + 0.3 * len(names))


def sizes(evaluation: Evaluation) -> str:
    """Draw a histogram of the sizes of the perturbations that broke points."""
    import numpy as np

    values = smallest_sizes(evaluation)
    threat = evaluation.record.threat

    def draw(axes: Any) -> None:
        axes.hist(values[np.isfinite(values)], bins=30, color=SERIES[1])
        if np.isfinite(threat.eps):
            axes.axvline(threat.eps, color=COLOURS["ink"], lw=1, ls="--", label="eps")
            _legend(axes)
        axes.set_xlabel(f"{threat.norm} size of the perturbation")
        axes.set_ylabel("points")
        axes.set_xlim(left=0)

    return _svg(draw, 2.8)


def _percent_across(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _short(name: str, most: int = 24) -> str:
    name = plain(name)
    return name if len(name) <= most else name[: most - 1] + "…"
