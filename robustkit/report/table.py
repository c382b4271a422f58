"""A table made again: paper and ours side by side, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robustkit.report import words
from robustkit.tables import Cell, TableRecord

if TYPE_CHECKING:
    from rich.console import Console

HEADER = ("Row", "Column", "Paper", "Ours [95 %]", "Seeds", "Points")


def lines(table: TableRecord) -> Iterator[tuple[str, ...]]:
    """Give a line for each number: row (once), column, paper, ours, range over seeds, points."""
    for row in table.rows:
        for i, (column, cell) in enumerate(row.cells.items()):
            yield (
                words.plain(row.name) if i == 0 else "",
                words.plain(column),
                "–" if cell.paper is None else f"{100 * cell.paper:.4g}",
                words.with_interval(cell.ours),
                _seeds(cell),
                str(cell.ours.n) if cell.ours else "–",
            )


def _seeds(cell: Cell) -> str:
    """Write how many seeds there are, and from where to where they reach; empty for one."""
    values = [100 * found.value for found in cell.seeds.values()]
    return f"{len(values)}: {min(values):.1f}–{max(values):.1f}" if len(values) > 1 else ""


def columns(table: TableRecord) -> Iterator[str]:
    """Say of each column what it is: attack, threat, points, and on what they were made."""
    for column in table.columns:
        points = f"the first {column.limit}" if column.limit else "all"
        made = f", made once on {words.plain(column.made_on)}" if column.made_on else ""
        yield (
            f"{words.plain(column.name)}: {words.component(column.attack)},"
            f" {words.threat_text(column.threat)}, {points} test points{made}"
        )


def remarks(table: TableRecord) -> Iterator[str]:
    """Say what was cut, and what happened to rows."""
    for cut in table.cuts:
        yield f"cut: {words.plain(cut)}"
    for row in table.rows:
        for note in row.notes:
            yield f"{words.plain(row.name)}: {words.plain(note)}"


def show(table: TableRecord, console: Console | None = None) -> None:
    """Print the table, and under it what was cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for title in HEADER:
        left = title in HEADER[:2]
        shown.add_column(title, justify="left" if left else "right", overflow="fold")
    for line in lines(table):
        shown.add_row(*map(Text, line), end_section=False)
    console.print(Text(table.title, style="bold"))
    console.print(shown)
    for column in columns(table):
        console.print(Text(column))
    for remark in remarks(table):
        console.print(Text(remark, style="yellow"))


def markdown(table: TableRecord) -> str:
    """Give the table as a Markdown page, with where its numbers come from."""
    origin = table.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    page = [
        f"# {words.plain(table.title)}",
        "",
        words.plain(table.source),
        "",
        f"| {' | '.join(HEADER)} |",
        "|---|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines(table)),
        "",
        *(f"- {remark}" for remark in (*columns(table), *remarks(table))),
        "",
        f"{origin.device}, {origin.threads} thread(s); {versions}; begun {origin.started}."
        " Ours is the mean over seeds with Wilson's 95 % interval for one seed's points; the seeds'"
        " column gives their number and range.",
    ]
    return "\n".join(page) + "\n"
