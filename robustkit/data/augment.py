"""Changes of training images that keep their class; each point's is its own, whatever the batch.

Pass the epoch as `at`: a point is then changed anew in each epoch, and alike in a resumed run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from robustkit.interfaces import Rng
from robustkit.threat import per_point

PADDING = 4


def augment(x: Tensor, names: Sequence[str], rng: Rng, at: object = 0) -> Tensor:
    """Change images (N, C, H, W) in the ways that a recipe's `fit.augment` names."""
    if "crop" in names:
        x = crop(x, PADDING, rng, at)
    if "flip" in names:
        x = flip(x, rng, at)
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
