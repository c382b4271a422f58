"""Arrays in an .npz file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robustkit.data.images import (
    SPLIT_SEED,
    TEST_SHARE,
    ArrayImages,
    Pixels,
    Subset,
    check_labels,
)
from robustkit.data.places import find
from robustkit.data.splits import hold_out
from robustkit.errors import BadValueError, nearest
from robustkit.files import map_arrays
from robustkit.interfaces import Dataset, Images

MOST_CHANNELS, MOST_CLASSES = 4, 65536
Array = NDArray[Any]


class Npz(Dataset):
    """Images `x` and labels `y` of an .npz file, or `x_train`, `y_train`, `x_test`, `y_test`.

    Also `image` and `label`. What is not compressed is mapped, not read.

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C) with up to 4 channels, of uint8, or floats
    in [0, 1] (rounded to 256 levels); labels are integers, -1 where unknown, as they all are in a
    file of images alone; `classes` may hold their names. Of `x` and `y`, a fixed fifth of each
    class is the test part.
    """

    name: ClassVar[str] = "npz"
    path: Path = Field(description="the .npz file")

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError for a file that is malformed, naming what is."""
        arrays = map_arrays(find(self.path, "data file"))
        origin = f"'{self.path}'"
        if "x_train" not in arrays:
            images = labelled_images(arrays, origin)
            train, test = hold_out(images.labels, TEST_SHARE, SPLIT_SEED)
            return Subset(images, train if part == "train" else test)
        pixels = to_pixels(_get(arrays, f"x_{part}", origin), f"{origin}: x_{part}")
        if set(arrays) == {"x_train", "x_test"}:
            return ArrayImages(pixels, _unknown(len(pixels)), (), origin)
        labels = [_get(arrays, key, origin) for key in ("y_train", "y_test")]
        own = labels[part == "test"]
        return ArrayImages(pixels, own, _classes(arrays, labels, origin), origin)


def labelled_images(
    arrays: dict[str, Array], origin: str, classes: Sequence[str] = ()
) -> ArrayImages:
    """Give `x` and `y` of an .npz, or its `image` and `label`, as published sets name them.

    `classes` name the labels where the file does not. The label of all images is -1 where it holds
    none: if the classes are named, or if it holds nothing but images. Raises BadValueError.
    """
    x = "image" if "x" not in arrays and "image" in arrays else "x"
    pixels = to_pixels(_get(arrays, x, origin), f"{origin}: {x}")
    y = "label" if x == "image" else "y"
    if y not in arrays and (classes or set(arrays) == {x}):
        return ArrayImages(pixels, _unknown(len(pixels)), classes, origin)
    labels = _get(arrays, y, origin)
    if not classes or arrays.get("classes", np.empty(0)).size:
        classes = _classes(arrays, [labels], origin)
    return ArrayImages(pixels, labels, classes, origin)


def _unknown(n: int) -> Array:
    return np.full(n, -1)


def _get(arrays: dict[str, Array], key: str, origin: str) -> Array:
    if key not in arrays:
        raise BadValueError(f"{origin} holds no array '{key}'{nearest(key, arrays)}")
    return arrays[key]


def _classes(arrays: dict[str, Array], labels: list[Array], origin: str) -> list[str]:
    """Give the class names: those of the file, else the numbers up to the largest label."""
    if "classes" in arrays:
        return [str(name) for name in arrays["classes"].ravel()]
    for y in labels:
        check_labels(y, len(y), MOST_CLASSES, origin)
    largest = max((int(y.max()) for y in labels if len(y)), default=-1)
    if largest < 0:
        raise BadValueError(f"{origin} holds no known label")
    return [str(label) for label in range(largest + 1)]


def to_pixels(x: Array, origin: str) -> Pixels:
    """Bring images to uint8 (N, C, H, W). Raises BadValueError for other types and ranges."""
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise BadValueError(f"{origin} has shape {x.shape}, not (N, H, W) or (N, C, H, W)")
    if x.shape[1] > MOST_CHANNELS:
        if x.shape[3] > MOST_CHANNELS:
            raise BadValueError(
                f"{origin} has shape {x.shape}: neither dimension 1 nor 3 counts channels"
            )
        x = x.transpose(0, 3, 1, 2)
    if np.issubdtype(x.dtype, np.floating) and x.size:
        low, high = x.min(), x.max()
        if not (low >= 0 and high <= 1):
            raise BadValueError(
                f"{origin} holds floats from {low:g} to {high:g}, outside [0, 1]; scale them"
            )
        x = np.round(x * 255).astype(np.uint8)
    if x.dtype != np.uint8:
        raise BadValueError(f"{origin} is {x.dtype}; give uint8, or floats in [0, 1]")
    return x
