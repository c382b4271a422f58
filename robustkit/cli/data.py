"""robustkit data: which data sets there are, and what is in one."""

from __future__ import annotations

from typing import Annotated

import typer

from robustkit.cli import options


def data(
    name: Annotated[str, typer.Argument(help="A data set; a list of them if absent.")] = "",
    path: options.DataPath = "",
    settings: options.Settings = [],  # noqa: B006 - typer copies it
) -> None:
    """Show a data set: sizes, classes, counts; fetches it where it is missing and can be had."""
    from robustkit.catalog import build, installed
    from robustkit.recipe import override, parse_override

    if not name:
        for entry in installed().of_kind("dataset"):
            print(f"{entry.name:<12} {_summary(entry.name)}")
        return
    chosen = [*options.data_settings(name, path)]
    chosen += [(f"data.{key}", value) for key, value in map(parse_override, settings)]
    dataset = build("dataset", override({}, chosen)["data"])

    from robustkit.data.describe import describe

    for part in ("train", "test"):
        facts = describe(dataset.split(part))
        print(f"{name} {part}")
        for fact, value in facts.items():
            print(f"  {fact:<8} {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def _summary(name: str) -> str:
    from robustkit.catalog import installed

    doc = installed().load("dataset", name).__doc__ or ""
    return doc.strip().splitlines()[0]
