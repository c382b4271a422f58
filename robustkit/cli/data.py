"""robustkit data: which data sets there are, where they are, and what is in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustkit.cli import options

if TYPE_CHECKING:
    from robustkit.data.rooted import Rooted


def data(
    name: Annotated[str, typer.Argument(help="A data set; a list of them if absent.")] = "",
    path: options.DataPath = "",
    classes: options.Classes = "",
    imbalance: options.Imbalance = None,
    settings: options.Settings = [],  # noqa: B006 - typer copies it
) -> None:
    """Show a data set: sizes, classes, counts; fetches it where it is missing and can be had.

    Without a name, list all, and say which are here.
    """
    from robustkit.catalog import build, installed
    from robustkit.recipe import override, parse_override

    if not name:
        for entry in installed().of_kind("dataset"):
            summary, state = _summary(entry.name)
            print(f"{entry.name:<14} {summary}")
            if state:
                print(f"{'':<14} {state}")
        return
    chosen = [*options.data_settings(name, path)]
    chosen += [(f"data.{key}", value) for key, value in map(parse_override, settings)]
    table, _ = options.narrowed(override({}, chosen), [], classes, imbalance)
    dataset = build("dataset", table["data"])

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


def _how(known: Rooted) -> str:
    return "fetched when used" if known.fetched else f"put {known.wanted} there"


def _summary(name: str) -> tuple[str, str]:
    """Say what a data set is, and where its files are or are looked for, where that is known."""
    from robustkit.catalog import installed
    from robustkit.data.rooted import Rooted

    kind = installed().load("dataset", name)
    doc = (kind.__doc__ or "").strip().splitlines()[0]
    if issubclass(kind, Rooted):
        known = kind()
        found = known.found()
        return doc, f"here: {found}" if found else f"not in {known.place}: {_how(known)}"
    if "path" in kind.model_fields:
        return doc, "where --data says"
    return doc, ""
