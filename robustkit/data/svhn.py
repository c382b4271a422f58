"""Street View House Numbers, from their MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from robustkit.data.images import ArrayImages, Pixels
from robustkit.data.rooted import Remote, Rooted
from robustkit.errors import BadValueError
from robustkit.interfaces import Images

PARTS = ("train", "test")


class SVHN(Rooted):
    """73,257 and 26,032 digits of house numbers, photographs of 32x32 pixels in colour.

    Source: Y. Netzer et al., Reading Digits in Natural Images, NIPS Workshop 2011, format 2. Reads
    root/SVHN/{train,test}_32x32.mat and fetches them when they are missing.
    """

    name: ClassVar[str] = "svhn"
    folder: ClassVar[str] = "SVHN"
    wanted: ClassVar[str] = "train_32x32.mat and test_32x32.mat"

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError where it is damaged, or missing and out of reach."""
        file = self._file(part)
        if not file.is_file():
            self.fetch([_remote(part)])
        pixels, labels = read_mat(file)
        return ArrayImages(pixels, labels, tuple("0123456789"), f"'{file}'")

    def found(self) -> Path | None:
        """Give the folder of the files, where both are there."""
        return self.place if all(self._file(part).is_file() for part in PARTS) else None

    def _file(self, part: str) -> Path:
        return self.place / f"{part}_32x32.mat"


def _remote(part: str) -> Remote:
    from torchvision.datasets import SVHN as KNOWN

    url, name, md5 = KNOWN.split_list[part]
    return Remote((url,), name, md5)


def read_mat(path: Path) -> tuple[Pixels, NDArray[Any]]:
    """Read images (N, 3, 32, 32) and labels (N,) from a file; its label 10 is the digit 0.

    Raises BadValueError for a file that is damaged or holds something else.
    """
    from scipy.io import loadmat

    try:
        arrays = loadmat(path, variable_names=["X", "y"])
    # A damaged file raises almost anything: zlib, value, type, memory and scipy's own errors.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadValueError(f"'{path}' is not a readable .mat file: {reason}") from None
    x, y = (np.asarray(arrays.get(key, ())) for key in ("X", "y"))
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise BadValueError(f"'{path}': X is {x.dtype} {x.shape}, not uint8 (32, 32, 3, N)")
    if y.dtype.kind not in "iu" or y.size != x.shape[3]:
        raise BadValueError(f"'{path}': y is {y.dtype} {y.shape}, not {x.shape[3]} integers")
    labels = y.ravel().astype(np.int64)
    outside = labels[(labels < 1) | (labels > 10)]
    if len(outside):
        raise BadValueError(f"'{path}': label {outside[0]} lies outside 1..10")
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), labels % 10
