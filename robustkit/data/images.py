"""Labelled images in memory, mapped from disk, or picked from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustkit.errors import BadValueError
from robustkit.interfaces import Images

Pixels = NDArray[np.uint8]
TEST_SHARE, SPLIT_SEED = 0.2, 0
"""Where data come in one piece, this share of each class is the test part, drawn by this seed."""


class ArrayImages:
    """Images of an array (N, C, H, W) of uint8, which may be mapped: see robustkit.Images.

    Labels (N,) lie in [0, classes), or are -1 where unknown. `remark` says in what the images
    differ from those that their name promises, if they do. Raises BadValueError, beginning with
    `origin`, for anything else.
    """

    def __init__(
        self,
        array: Pixels,
        labels: NDArray[Any],
        classes: Sequence[str],
        origin: str = "images",
        remark: str = "",
    ) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape:
            raise BadValueError(
                f"{origin}: images are {array.dtype} {array.shape}, not uint8 (N, C, H, W)"
            )
        check_labels(labels, len(array), len(classes), origin)
        if len(set(classes)) != len(classes):
            raise BadValueError(f"{origin}: two classes have the same name among {list(classes)}")
        self._array = array
        _, channels, height, width = array.shape
        self.shape = (channels, height, width)
        self.classes = tuple(classes)
        self.remark = remark
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self._array)

    def take(self, ids: Tensor) -> Tensor:
        """Give the images of ids (n,) as uint8 (n, C, H, W)."""
        return torch.from_numpy(self._array[ids.cpu().numpy()])


class Subset:
    """Some of other images, by their ids there; an id here is a place in `ids` (n,).

    Their labels (n,) and classes may be others, too.
    """

    def __init__(
        self,
        images: Images,
        ids: Tensor,
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self._images, self._ids = images, ids.cpu()
        self.shape, self.classes = images.shape, classes or images.classes
        self.remark = remark_of(images)
        self.labels = images.labels[self._ids] if labels is None else labels

    def __len__(self) -> int:
        return len(self._ids)

    def take(self, ids: Tensor) -> Tensor:
        """Give the images of ids (n,) as uint8 (n, C, H, W)."""
        return self._images.take(self._ids[ids.cpu()])


def remark_of(images: Images) -> str:
    """Say in what images differ from what their data set's name promises; "" if in nothing."""
    return str(getattr(images, "remark", ""))


def unit(x: Tensor) -> Tensor:
    """Bring uint8 images to [0, 1] as float32, to the same bits on every device."""
    # A plain `/ 255` is a multiplication by a rounded reciprocal on CUDA.
    return x.float() / torch.tensor(255.0, device=x.device)


def check_labels(labels: NDArray[Any], images: int, classes: int, origin: str) -> None:
    """Refuse labels that are not one integer in [-1, classes) for each image: BadValueError."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise BadValueError(f"{origin}: labels are {labels.dtype} {labels.shape}, not integer (N,)")
    if len(labels) != images:
        raise BadValueError(f"{origin}: {images} images but {len(labels)} labels")
    outside = labels[(labels < -1) | (labels >= classes)]
    if len(outside):
        raise BadValueError(
            f"{origin}: label {outside[0]} lies outside the {classes} classes 0..{classes - 1}"
        )
