"""MNIST and Fashion-MNIST, from their standard files."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robustkit.data.images import ArrayImages, Pixels
from robustkit.data.rooted import Remote, Rooted
from robustkit.errors import BadValueError
from robustkit.interfaces import Images

Part = Literal["train", "test"]
STEMS: dict[Part, str] = {"train": "train", "test": "t10k"}


class MNIST(Rooted):
    """60,000 and 10,000 handwritten digits of 28x28 grey pixels.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST Database, 1998. Reads the idx files below
    root/MNIST/raw (plain or .gz) and fetches them when they are missing.
    """

    name: ClassVar[str] = "mnist"
    folder: ClassVar[str] = "MNIST/raw"
    wanted: ClassVar[str] = "its four idx files"
    publisher: ClassVar[str] = "MNIST"
    """The class of torchvision that knows mirrors and checksums."""
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def split(self, part: Part) -> Images:
        """Load one part. Raises BadValueError where it is damaged, or missing and out of reach."""
        files = self._files(part)
        if not all(map(_present, files)):
            self.fetch(self._remotes())
        images, labels = (
            read_idx(_present(file) or file, dims) for file, dims in zip(files, (3, 1), strict=True)
        )
        return ArrayImages(
            images[:, None], labels, self.class_names, f"{self.name} in '{self.place}'"
        )

    def found(self) -> Path | None:
        """Give the folder of the files, where all four are there."""
        files = [file for part in STEMS for file in self._files(part)]
        return self.place if all(map(_present, files)) else None

    def _files(self, part: Part) -> list[Path]:
        names = ("images-idx3-ubyte", "labels-idx1-ubyte")
        return [self.place / f"{STEMS[part]}-{name}" for name in names]

    def _remotes(self) -> list[Remote]:
        from torchvision import datasets

        known = getattr(datasets, self.publisher)
        return [
            Remote(tuple(mirror + name for mirror in known.mirrors), name, md5)
            for name, md5 in known.resources
        ]


class FashionMNIST(MNIST):
    """60,000 and 10,000 photographs of clothes, of 28x28 grey pixels.

    Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv:1708.07747. Reads the idx files
    below root/FashionMNIST/raw (plain or .gz) and fetches them when they are missing.
    """

    name: ClassVar[str] = "fashion-mnist"
    folder: ClassVar[str] = "FashionMNIST/raw"
    publisher: ClassVar[str] = "FashionMNIST"
    class_names: ClassVar[tuple[str, ...]] = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


def _present(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


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
