"""MNIST, from its standard files."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from robustkit.data.images import ArrayImages, Pixels
from robustkit.data.places import home
from robustkit.errors import BadValueError
from robustkit.interfaces import Dataset, Images

STEMS = {"train": "train", "test": "t10k"}


class MNIST(Dataset):
    """60,000 and 10,000 handwritten digits of 28x28 pixels.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST Database, 1998. Reads the idx files below
    root/MNIST/raw (plain or .gz) and fetches them when they are missing.
    """

    name: ClassVar[str] = "mnist"
    root: Path | None = Field(
        default=None,
        description="folder that holds MNIST/raw; default: ROBUSTKIT_DATA or ~/.cache/robustkit",
    )

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError where it is damaged, or missing and out of reach."""
        root = self.root.expanduser() if self.root else home("ROBUSTKIT_DATA")
        raw, stem = root / "MNIST" / "raw", STEMS[part]
        names = [f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"]
        if not all(_present(raw / name) for name in names):
            _fetch(root)
        images, labels = (
            read_idx(_present(raw / name) or raw / name, dims=dims)
            for name, dims in zip(names, (3, 1), strict=True)
        )
        classes = [str(digit) for digit in range(10)]
        return ArrayImages(images[:, None], labels, classes, f"mnist in '{raw}'")


def _present(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _fetch(root: Path) -> None:
    """Fetch the files; torchvision knows their mirrors and checksums."""
    from torchvision import datasets

    try:
        # Its progress goes to stderr, its failed mirrors to stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            datasets.MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadValueError(
            f"mnist is not in '{root / 'MNIST' / 'raw'}' and cannot be fetched ({reason}): put its"
            " four idx files there, or name the folder that holds MNIST/raw by ROBUSTKIT_DATA"
        ) from None


def read_idx(path: Path, dims: int) -> Pixels:
    """Read an idx file of unsigned bytes, plain or .gz, with `dims` dimensions.

    Raises BadValueError for a file that is missing, damaged, or of another type or length.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadValueError(f"'{path}' cannot be read: {error}") from None
    magic, header = bytes((0, 0, 8, dims)), 4 + 4 * dims
    if data[:4] != magic:
        raise BadValueError(
            f"'{path}' is not an idx file of bytes in {dims} dimensions: it begins with"
            f" {data[:4].hex() or 'nothing'}, not {magic.hex()}"
        )
    shape = np.frombuffer(data[4:header].ljust(4 * dims, b"\0"), ">u4").tolist()
    if len(data) - header != math.prod(shape):
        raise BadValueError(
            f"'{path}' is damaged: {len(data)} bytes long, not {header + math.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
