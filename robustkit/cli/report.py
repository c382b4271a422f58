"""robustkit report: a terminal table, Markdown, and one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; the first run's folder if absent.")
    ] = None,
) -> None:
    """Show runs in the terminal and write report.html and report.md, each one file."""
    from robustkit.files import write_text
    from robustkit.report import collect, html, markdown, terminal

    found = collect(runs)
    terminal.show(found)
    folder = out or runs[0]
    write_text(folder / "report.html", html.render(found))
    write_text(folder / "report.md", markdown.render(found))
    print(f"{folder / 'report.html'}\n{folder / 'report.md'}")
