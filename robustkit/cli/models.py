"""robustkit models: which architectures there are, and what a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustkit.cli import options


def models(
    model: Annotated[
        str, typer.Argument(help="A model.pt, run folder or zoo:NAME; all architectures if absent.")
    ] = "",
    arch: options.Arch = "",
) -> None:
    """Show the architectures, or what is known of one model file (nothing in it is run)."""
    from robustkit.catalog import installed

    catalog = installed()
    if model and (":" in model or Path(model).exists() or ("model", model) not in catalog.entries):
        _show_file(model, arch)
        return
    for entry in catalog.of_kind("model"):
        if model in ("", entry.name):
            doc = (catalog.load("model", entry.name).__doc__ or "").strip().splitlines()[0]
            print(f"{entry.name:<17} {doc}")


def _show_file(model: str, arch: str) -> None:
    from robustkit.cli.sources import find_model
    from robustkit.models.files import Given, load_model
    from robustkit.records import Threat
    from robustkit.report.words import component

    path = find_model(model)
    loaded = load_model(path, "cpu", Given(options.architecture(arch)))
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    print(path)
    print(f"  architecture {component(loaded.architecture)}")
    print(f"  parameters   {parameters:,}")
    print(f"  images       {'x'.join(map(str, loaded.shape))} in [0, 1]")
    print(f"  classes      {len(loaded.classes)}: {', '.join(loaded.classes[:10])}")
    for key, value in loaded.record.items():
        shown = component(value) if isinstance(value, dict) and "name" in value else value
        print(f"  {key:<12} {Threat(**value).model() if key == 'threat' else shown}")
