"""robustkit analyse: measures of runs that need their records alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustkit.cli import costs

if TYPE_CHECKING:
    from robustkit.analyses import DirectionsRecord, GapRecord, ScoreRecord
    from robustkit.report import Run

app = typer.Typer(
    no_args_is_help=True,
    help="Measure what runs show: where two models differ, what errors cost, which classes hold."
    " Reads records only; leaves a JSON record and a picture.",
)
RunPath = Annotated[Path, typer.Argument(help="A run folder with evaluations.")]
Metric = Annotated[
    str, typer.Option("--metric", help="A label metric by its name, or a CSV of the classes.")
]
Evaluation = Annotated[
    str,
    typer.Option(
        "--eval",
        help="How its file's name begins, as pgd-linf-0.1; the one of the verdict if absent.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write; RUN/analysis if absent.")]


@app.command("gap")
def gap(
    robust: Annotated[Path, typer.Argument(help="The run of the robust model.")],
    standard: Annotated[Path, typer.Argument(help="The run of the standard one.")],
    metric: Metric = "",
    out: Out = None,
) -> None:
    """Accuracy gap of two models on the same clean points, and its correlation with a metric."""
    from robustkit.analysis.recorded import gap_record
    from robustkit.report import analyses

    named = costs.find(metric) if metric else None
    pair = analyses.on_the_same_points(_run(robust), _run(standard))
    record = gap_record(*pair, named)
    stem = _keep(record, out or robust / "analysis")
    analyses.draw_gap(record, named, stem)
    _show(analyses.gap_lines(record), stem)


@app.command("score")
def score(
    run: RunPath,
    metric: Annotated[str, typer.Option("--metric", help="A label metric's name, or a CSV.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="Another run, attacked alike.")
    ] = None,
    evaluation: Evaluation = "",
    out: Out = None,
) -> None:
    """Weighted robustness score S of a run's adversarial errors, and its difference to another's.

    Use an attack that knows the metric: others may leave dearer errors unfound.
    """
    from robustkit.analysis.recorded import score_record
    from robustkit.report import analyses

    named = costs.find(metric)
    ours = analyses.chosen(_run(run), evaluation)
    other = analyses.alike(_run(against), ours) if against else None
    record = score_record(ours, named, other)
    stem = _keep(record, out or run / "analysis")
    analyses.draw_score(ours, other, named, stem)
    _show(analyses.score_lines(record, ours), stem)


@app.command("directions")
def directions(run: RunPath, evaluation: Evaluation = "", out: Out = None) -> None:
    """Directional robustness: into which classes an attack turned each class, and which hold."""
    from robustkit.analysis.recorded import directions_record
    from robustkit.report import analyses

    ours = analyses.chosen(_run(run), evaluation)
    record = directions_record(ours)
    stem = _keep(record, out or run / "analysis")
    analyses.draw_directions(record, ours, stem)
    _show(analyses.direction_lines(record, ours), stem)


def _run(path: Path) -> Run:
    from robustkit.report import collect

    return collect([path])[0]


def _keep(record: GapRecord | ScoreRecord | DirectionsRecord, folder: Path) -> Path:
    """Write a record, and give the stem of its files."""
    record.write(folder / f"{record.stem}.json")
    return folder / record.stem


def _show(lines: Iterable[str], stem: Path) -> None:
    for line in lines:
        print(line)
    for kind in ("json", "png", "svg"):
        print(f"{stem}.{kind}")
