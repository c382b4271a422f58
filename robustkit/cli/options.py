"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from robustkit.errors import BadValueError

Dataset = Annotated[
    str, typer.Option("--dataset", help="A data set: digits, mnist, folder, npz, ...")
]
DataPath = Annotated[
    str, typer.Option("--data", help="The data set's file or folder, where it needs one.")
]
Settings = Annotated[
    list[str], typer.Option("--set", help="Set one key, as a.b=value; may be given again.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run was interrupted.")]


def data_settings(dataset: str, path: str) -> list[tuple[str, Any]]:
    """Say in recipe keys what --dataset and --data mean."""
    settings: list[tuple[str, Any]] = [("data.name", dataset)] if dataset else []
    if path:
        key = "root" if dataset == "mnist" else "path"
        settings.append((f"data.{key}", path))
    return settings


def free_folder(name: str) -> Path:
    """Give runs/NAME, or the first of runs/NAME-2, -3, ... that is not there."""
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder


def require_writable(folder: Path) -> None:
    """Refuse at once a folder that a run could not be written to."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise BadValueError(f"cannot write '{folder}': '{existing}' is a file")
    if not os.access(existing, os.W_OK):
        raise BadValueError(f"cannot write '{folder}': no permission in '{existing}'")


def split_list(text: str) -> list[str]:
    """Split "a,b" at commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def chosen(**options: Any) -> Iterable[tuple[str, Any]]:
    """Give the options that were set, as (recipe path, value); `a__b` stands for a.b."""
    return [(name.replace("__", "."), v) for name, v in options.items() if v not in (None, "")]
