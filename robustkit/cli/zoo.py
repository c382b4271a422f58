"""robustkit zoo: the small trained models that come with robustkit."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from robustkit.errors import UnknownNameError


def zoo(
    name: Annotated[str, typer.Argument(help="A model of the zoo; a list if absent.")] = "",
) -> None:
    """List the trained models that come along; use one as `robustkit eval zoo:NAME`."""
    if name:
        weights_of(name)
        print(json.dumps(cards()[name], indent=1))
        return
    for model, card in cards().items():
        print(f"zoo:{model:<28} {card['summary']}")


def cards() -> dict[str, dict[str, Any]]:
    """Give the card of each model of the zoo by name."""
    root = _root()
    return {
        path.parent.name: json.loads(path.read_text("utf-8"))
        for path in sorted(root.glob("*/card.json"))
    }


def weights_of(name: str) -> Path:
    """Find a zoo model's file. Raises UnknownNameError."""
    if name not in cards():
        raise UnknownNameError("zoo model", name, cards())
    return _root() / name / "model.pt"


def _root() -> Path:
    return Path(str(files("robustkit_zoo")))
