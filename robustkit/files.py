"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from robustkit.errors import BadValueError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and move it there; a kill at any moment leaves old or new.

    Raises BadValueError where the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadValueError(f"cannot write '{path}': {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise BadValueError(f"cannot write '{path}': {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    write_whole(path, lambda file: file.write(content))


def read_arrays(path: Path) -> dict[str, Any]:
    """Read an .npz into memory, without pickles. Raises BadValueError where it is damaged."""
    import numpy as np

    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # numpy would take it for a pickle, or one array
                raise zipfile.BadZipFile("it is no zip archive, or a truncated one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    # A damaged archive raises almost anything: zip, zlib, value, memory and attribute errors.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        line = reason.splitlines()[0]
        raise BadValueError(f"'{path}' is not a readable .npz file: {line}") from None
