"""The digits that scikit-learn carries: real data that needs no file."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from robustkit.data.images import SPLIT_SEED, ArrayImages, Pixels, Subset
from robustkit.data.splits import hold_out
from robustkit.interfaces import Dataset, Images

TEST_POINTS = 360


class Digits(Dataset):
    """1,797 handwritten digits of 8x8 pixels, 1,437 to train on and 360 to test on.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its
    test part, as scikit-learn embeds it); 17 grey levels, spread over 0..255.
    """

    name: ClassVar[str] = "digits"

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part."""
        pixels, labels = _load()
        images = ArrayImages(pixels, labels, [str(digit) for digit in range(10)], "digits")
        train, test = hold_out(torch.from_numpy(labels), TEST_POINTS, SPLIT_SEED)
        return Subset(images, train if part == "train" else test)


@cache
def _load() -> tuple[Pixels, NDArray[Any]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    levels = np.round(images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    return levels, labels.astype(np.int64)
