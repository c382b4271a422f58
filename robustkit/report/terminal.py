"""Runs as a table in the terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustkit.report import summary, words
from robustkit.report.accuracies import Sweep, from_parts, from_points, rows, sweeps
from robustkit.report.collect import Run
from robustkit.report.comparison import compare

if TYPE_CHECKING:
    from rich.console import Console


def show(runs: Sequence[Run], console: Console | None = None) -> None:
    """Print a table of runs and evaluations, and under it what to know before its numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    several = len(runs) > 1
    if several:
        table.add_column("Run", overflow="fold", max_width=12)
    table.add_column("Attack", overflow="fold")
    table.add_column("Threat", overflow="fold")
    for title in ("Points", "Clean", "Robust [95 %]"):
        table.add_column(title, justify="right", no_wrap=True)
    notes: list[str] = []
    for run in runs:
        for i, row in enumerate(rows(run)):
            notes += [note for note in row.warnings if note not in notes]
            marks = "".join(f" ({notes.index(note) + 1})" for note in row.warnings)
            name = [Text(words.plain(run.name) if i == 0 else "")] if several else []
            robust = row.instead or words.with_interval(row.robust)
            cells = (row.attack, row.threat, row.points, words.percent(row.clean.value))
            table.add_row(*name, *map(Text, cells), Text(f"{robust}{marks}"))
    for run in runs:
        verdict = Text(f"{words.plain(run.name)}: ", style="bold")
        console.print(verdict.append(summary.verdict(run), style="not bold"))
        told = [note for note in summary.notices(run) if note not in notes]
        for note in told:
            console.print(Text(note, style="yellow"))
    if table.row_count:
        console.print(table)
    for i, note in enumerate(notes, 1):
        console.print(Text(f"({i}) {note}", style="yellow"))
    for run in runs:
        for sweep in (*sweeps(run), *from_points(run), *from_parts(run)):
            _show_sweep(sweep, f"{words.plain(run.name)}: " if several else "", console)
    for note in compare(runs).notes if several else ():
        console.print(Text(note))


def _show_sweep(sweep: Sweep, run: str, console: Console) -> None:
    """Print robust accuracy by size, a column an attack, and under it its warnings."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(
        f"\n{run}Robust accuracy in % by {sweep.by} ({sweep.where}) on {sweep.clean.n} points;"
        f" clean {words.with_interval(sweep.clean)},"
        f" 95 % intervals within ±{100 * sweep.spread:.1f}",
        markup=False,
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for title in (sweep.by, *(name for name, _ in sweep.attacks)):
        table.add_column(Text(title), justify="right", overflow="fold")
    for size, cells in sweep.lines:
        shown = (f"{100 * rate.value:.1f}" if rate else "–" for rate in cells)
        table.add_row(size, *shown)
    console.print(table)
    for warning in sweep.warnings:
        console.print(Text(warning, style="yellow"))
