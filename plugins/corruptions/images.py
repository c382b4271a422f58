"""Corrupted images, by the library imagecorruptions-imaug."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import robustkit as rk

SIDE = 32
"""The library wants images of no fewer pixels a side; smaller ones are mirrored at their border."""


def corrupted(
    x: Tensor, which: Sequence[str], severities: Sequence[int], seeds: Sequence[int]
) -> Tensor:
    """Corrupt each of x (N, C, H, W) in [0, 1], grey or RGB, by its own corruption and seed.

    Raises BadValueError where images are of other channels, or the library is not installed.
    """
    if x.shape[1] not in (1, 3):
        raise rk.BadValueError(
            f"images of {x.shape[1]} channels cannot be corrupted; they must be grey or RGB"
        )
    corrupt = _library()
    pixels = (255 * x.detach().clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1)
    found = [
        _one(corrupt, *each)
        for each in zip(pixels.cpu().numpy(), which, severities, seeds, strict=True)
    ]
    stacked = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)[:, : x.shape[1]]
    return stacked.to(x) / 255


def _library() -> Any:
    try:
        from imagecorruptions import corrupt
    except ImportError:
        raise rk.BadValueError(
            "common corruptions need an extra: pip install 'robustkit[corruptions]'"
        ) from None
    return corrupt


def _one(
    corrupt: Any, image: NDArray[np.uint8], which: str, severity: int, seed: int
) -> NDArray[np.uint8]:
    """Corrupt one image (H, W, C); a grey one comes back as three channels."""
    height, width, _ = image.shape
    short = [max(SIDE - side, 0) for side in (height, width)]
    around = [(s // 2, s - s // 2) for s in short]
    wide = np.pad(image, [*around, (0, 0)], mode="symmetric")
    own = {"seed": seed} if which in ("glass-blur", "impulse-noise") else {}
    with _seeded(seed):
        made = corrupt(wide, severity, which.replace("-", "_"), **own)
    (top, _), (left, _) = around
    kept: NDArray[np.uint8] = made[top : top + height, left : left + width]
    return kept


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global random numbers, which the library draws from; then put them back."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
