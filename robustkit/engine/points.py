"""The points of a training: those trained on, and those held out of them for selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustkit.data.describe import channel_stats, class_counts
from robustkit.data.images import Subset
from robustkit.data.splits import hold_out
from robustkit.errors import BadValueError
from robustkit.interfaces import Dataset, Images
from robustkit.recipe import Fit


@dataclass(frozen=True)
class Points:
    """Two parts of a data set's training points, and what the first one measures."""

    train: Images
    heldout: Images
    counts: Tensor
    """Training points of each class (classes,)."""
    mean: list[float]
    """Of each channel's pixels in [0, 1], over the points trained on; so is std."""
    std: list[float]


def divide(data: Dataset, fit: Fit, seed: int) -> Points:
    """Hold points out of the training data, class by class; unlabelled ones are left out.

    Raises BadValueError where a part would be empty.
    """
    images = data.split("train")
    known = (images.labels >= 0).nonzero().squeeze(1)
    kept, heldout = (known[part] for part in hold_out(images.labels[known], fit.heldout, seed))
    kept = some(images.labels, kept, fit.limit, seed)
    train = Subset(images, kept)
    if len(kept) < 2:
        raise BadValueError(f"only {len(kept)} points of '{data.name}' are left to train on")
    mean, std = channel_stats(train)
    return Points(train, Subset(images, heldout), torch.tensor(class_counts(train)), mean, std)


def some(labels: Tensor, ids: Tensor, limit: int | None, seed: int) -> Tensor:
    """Pick at most `limit` of the ids (n,), each class in proportion."""
    if limit is None or limit >= len(ids):
        return ids
    return ids[hold_out(labels[ids], limit, seed)[1]]
