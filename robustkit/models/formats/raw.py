"""The bytes of a file, before anything in them is believed."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from robustkit.errors import BadValueError, nearest
from robustkit.models.loaded import first_line


def read(path: Path) -> bytes:
    """Read a file. Raises BadValueError where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        raise BadValueError(f"model file '{path}' does not exist{near}") from None
    except OSError as error:
        raise BadValueError(f"model file '{path}' cannot be read: {error.strerror}") from None


def refuse_text(path: Path, data: bytes) -> None:
    """Raise BadValueError for a page or a text that was saved in a model's place."""
    if text := _text(data):
        raise BadValueError(f"model file '{path}' is {text}, not a model; download it again")


COMPRESSED = 2**26
"""Bytes that compressed parts may unpack to; torch compresses nothing but code."""


def unpack(path: Path, data: bytes) -> dict[str, bytes]:
    """Give the parts of a zip by name. Raises BadValueError where it is damaged or vast."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            packed = [part for part in parts if part.compress_type != zipfile.ZIP_STORED]
            if sum(part.file_size for part in packed) > COMPRESSED:
                raise ValueError("what it holds unpacks to more than a model's code")
            return {part.filename: archive.read(part) for part in parts}
    # zipfile raises many kinds: zip, struct, value, runtime and decoding errors.
    except Exception as error:
        raise BadValueError(
            f"model file '{path}' is truncated or damaged: {first_line(error)}"
        ) from None


def pack(parts: dict[str, bytes]) -> io.BytesIO:
    """Write parts as a zip anew, so that what was checked is what is loaded.

    torch's reader skips checksums and sees directory flags that Python's does not.
    """
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    clean.seek(0)
    return clean


def _text(data: bytes) -> str:
    """Say what kind of text a file is; empty where it is none."""
    start = data[:512].lstrip()
    if start[:1] == b"<":
        return "an HTML or XML page"
    try:
        line = (start.decode("ascii").splitlines() or [""])[0]
    except UnicodeDecodeError:
        return ""
    return f"text that begins '{line[:40]}'" if line.isprintable() and line else ""
