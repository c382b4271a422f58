"""Where data are looked for, and where what was made of them is kept."""

from __future__ import annotations

import os
from pathlib import Path

from robustkit.errors import BadValueError, nearest


def home(variable: str) -> Path:
    """Give the folder that an environment variable names, else ~/.cache/robustkit."""
    return Path(os.environ.get(variable) or "~/.cache/robustkit").expanduser()


def find(path: Path, thing: str) -> Path:
    """Resolve `~` in a path that exists. Raises BadValueError with the nearest name beside it."""
    path = path.expanduser()
    if path.exists():
        return path
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise BadValueError(f"{thing} '{path}' does not exist{nearest(path.name, beside)}")
