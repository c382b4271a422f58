"""robustkit reproduce: make a published table again, and put it beside the paper's."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustkit.cli import options
from robustkit.errors import BadValueError

if TYPE_CHECKING:
    from robustkit.engine.reproduce import Job
    from robustkit.records import Rate


def reproduce(
    name: Annotated[str, typer.Argument(help="A table; see the list without a name.")] = "",
    rows: Annotated[
        str, typer.Option("--rows", help="Some rows only, by number from 1, as 1,3.")
    ] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, as 0,1; else the table's.")] = "",
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", help="Epochs of the longest row; all shrink in proportion."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Test points under each attack.")
    ] = None,
    settings: options.Settings = [],  # noqa: B006 - typer copies it
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the runs; runs/NAME if absent.")
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Make a published table again: train its rows, attack them, print paper and ours.

    Interrupted, the same command goes on where it was; finished runs are not done again. What is
    less than published (epochs, seeds, points) is said under the table. Rows can be made apart,
    even at the same time, and put together by the command that names no rows; a run that a column
    is made on comes first, and must be there before rows are made at the same time.
    """
    from robustkit.engine import reproduce as engine
    from robustkit.engine import tabulate
    from robustkit.engine.provenance import now
    from robustkit.files import write_text
    from robustkit.recipe import parse_override
    from robustkit.report import table as report

    if not name:
        show_tables()
        return
    plan = engine.planned(name)
    cut = engine.Cut(
        rows=tuple(options.split_list(rows)),
        seeds=tuple(map(_seed, options.split_list(seeds))),
        epochs=epochs,
        limit=limit,
        settings=tuple(map(parse_override, settings)),
    )
    folder = out or Path("runs") / name
    options.require_writable(folder)
    sources, jobs = engine.sources(plan, cut, folder), engine.jobs(plan, cut, folder)
    places = (f"run {i} of {len(sources) + len(jobs)}" for i in count(1))
    started = now()
    made_on = [(job, craft(job, next(places), device)) for job in sources]
    runs = [(job, *run(job, next(places), device)) for job in jobs]
    record = tabulate.table(name, plan, cut, runs, device, started, made_on)
    record.write(folder / "table.json")
    write_text(folder / "table.md", report.markdown(record))
    report.show(record)
    print(f"{folder / 'table.md'}\nnext: robustkit report {folder}/*/")


def craft(job: Job, place: str, device: str) -> str:
    """Train a run that columns are made on, and make their images, with progress."""
    from robustkit.cli.show import EvalProgress

    names = ", ".join(column.name for column in job.columns)
    stopped = train(job, f"{place}, for {names}", device)
    with EvalProgress() as making:
        job.craft(device, making)
    return stopped


def run(job: Job, place: str, device: str) -> tuple[str, dict[str, Rate]]:
    """Train and evaluate one run, with progress."""
    from robustkit.cli.show import EvalProgress

    stopped = train(job, place, device)
    with EvalProgress() as evaluation:
        return stopped, job.evaluate(device, evaluation)


def train(job: Job, place: str, device: str) -> str:
    """Train one run with progress, and say why it stopped early, if it did."""
    from robustkit.cli.show import TrainProgress

    with TrainProgress() as training:
        training.note(f"{place}: {job.row.name}, seed {job.recipe.seed}, in {job.folder.path}")
        stopped = job.train(device, training)
        if stopped:
            training.note(stopped)
    return stopped


def show_tables() -> None:
    """List the tables that there are."""
    from robustkit import tables
    from robustkit.catalog import installed

    catalog = installed()
    for entry in catalog.of_kind("table"):
        plan = tables.parse(catalog.text("table", entry.name), entry.name)
        print(f"{entry.name}: {plan.title}")
        for i, row in enumerate(plan.rows, 1):
            print(f"  {i}  {row.name}")


def _seed(text: str) -> int:
    if not text.isdigit():
        raise BadValueError(f"--seeds: '{text}' is not a whole number from 0 on")
    return int(text)
