"""Points of a plane in three classes: small enough to see what training does to a boundary."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robustkit.data.images import SPLIT_SEED, ArrayImages
from robustkit.data.splits import stream
from robustkit.interfaces import Dataset, Images

CLASSES = ("a", "b", "c")
SIZES = {"train": 3000, "test": 1000}
WAVE, HEIGHT = 0.3, 0.07
"""Of the waves along a border: their length, and how far they go to either side."""


class Plane(Dataset):
    """Three sectors with wavy borders, each of which meets both others; images are 1x1x2.

    Of an image in [0, 1] the two pixels are a point's coordinates. A toy after figures 8 and 9 of
    Terzi et al. 2020 (arXiv 1910.03468), whose own is not described (ours).
    """

    name: ClassVar[str] = "plane"
    gap: float = Field(default=0.02, ge=0, lt=0.1, description="no point is nearer to a border")

    def split(self, part: Literal["train", "test"]) -> Images:
        """Draw one part: 3,000 points to train on, 1,000 to test on."""
        draws = stream(SPLIT_SEED, len(part)).randint(0, 256, (20 * SIZES[part], 2))
        points = draws.astype(np.uint8)
        labels, distance = sectors(points / 255)
        kept = (distance > self.gap).nonzero()[0][: SIZES[part]]
        return ArrayImages(points[kept].reshape(-1, 1, 1, 2), labels[kept], CLASSES, "plane")


def sectors(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give the class of points (N, 2) in [0, 1], and about how far the next border is (N,)."""
    x, y = (points - 0.5).T
    radius = np.hypot(x, y)
    phase, far = 2 * math.pi * radius / WAVE, np.maximum(radius, WAVE)
    turns = (np.arctan2(y, x) + HEIGHT / far * np.sin(phase)) * 3 / (2 * math.pi) % 3
    labels = np.minimum(turns.astype(np.int64), 2)
    aside = np.minimum(turns % 1, 1 - turns % 1) * 2 * math.pi / 3 * radius
    slant = HEIGHT * 2 * math.pi / WAVE * np.cos(phase) * radius / far
    return labels, aside / np.hypot(1, slant)
