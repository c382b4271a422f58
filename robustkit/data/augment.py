"""Changes of training points; each point's is its own, whatever the batch.

Pass the epoch as `at`: a point is then changed anew in each epoch, and alike in a resumed run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from robustkit.interfaces import Rng
from robustkit.threat import per_point

PADDING = 4


@dataclass(frozen=True)
class Augmentation:
    """The changes that a recipe's `fit.augment` names; `mean` (C,) is the data's, for cutout."""

    names: Sequence[str]
    mean: Sequence[float]

    def __call__(self, x: Tensor, rng: Rng, at: object = 0) -> Tensor:
        """Change images (N, C, H, W)."""
        if "crop" in self.names:
            x = crop(x, PADDING, rng, at)
        if "flip" in self.names:
            x = flip(x, rng, at)
        if "cutout" in self.names:
            x = cutout(x, x.new_tensor(self.mean), rng, at)
        return x


def crop(x: Tensor, padding: int, rng: Rng, at: object = 0) -> Tensor:
    """Pad images (N, C, H, W) with zeros on all sides and cut a window of their size out."""
    n, _, height, width = x.shape
    down, right = rng.choice(2 * padding + 1, (2,), at=("crop", at)).unbind(1)
    rows = down.unsqueeze(1) + torch.arange(height, device=x.device)
    columns = right.unsqueeze(1) + torch.arange(width, device=x.device)
    points = torch.arange(n, device=x.device).view(-1, 1, 1)
    # Indexed beside a slice, the channels go last.
    windows = pad(x, (padding,) * 4)[points, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return windows.permute(0, 3, 1, 2).contiguous()


def flip(x: Tensor, rng: Rng, at: object = 0) -> Tensor:
    """Mirror images (N, C, H, W) left to right, each with a chance of one half."""
    mirrored = rng.choice(2, at=("flip", at)).bool()
    return x.flip(3).where(per_point(mirrored, x), x)


def cutout(x: Tensor, fill: Tensor, rng: Rng, at: object = 0) -> Tensor:
    """Put the colour `fill` (C,) over a square of half the shorter side, centred anywhere.

    It may reach over the edge, as in DeVries and Taylor 2017 (arXiv 1708.04552), section 3.2; they
    fill with zero after normalisation, which is the data's mean.
    """
    height, width = x.shape[2:]
    half = min(height, width) // 4
    rows = torch.arange(height, device=x.device) - rng.choice(height, (1,), at=("cutout row", at))
    columns = torch.arange(width, device=x.device) - rng.choice(width, (1,), at=("cutout", at))
    down, across = ((-half <= d) & (d < half) for d in (rows, columns))
    hidden = (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)
    return fill.view(-1, 1, 1).where(hidden, x)


def smooth(y: Tensor, classes: int, share: float = 0.0) -> Tensor:
    """Give soft labels (N, classes) of labels (N,) or soft ones, `share` of each spread evenly.

    Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    soft = one_hot(y, classes).float() if y.dim() == 1 else y
    return soft * (1 - share) + share / classes
