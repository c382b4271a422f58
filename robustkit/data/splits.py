"""Parts of a data set that are drawn once and stay the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robustkit.errors import BadValueError


def stream(*key: int) -> np.random.RandomState:
    """Give random numbers that are a function of the key and nothing else."""
    # numpy promises the stream of RandomState for good, and of its newer generators not.
    words = [word for part in key for word in (part & 0xFFFFFFFF, part >> 32 & 0xFFFFFFFF)]
    return np.random.RandomState(words)


def permutation(n: int, *key: int) -> Tensor:
    """Shuffle range(n) (n,): a function of the key and nothing else, in every numpy version."""
    return torch.from_numpy(stream(*key).permutation(n).astype(np.int64))


def hold_out(labels: Tensor, part: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split points (N,) into those kept and those held out, class by class: two sorted (n,) of ids.

    `part` below 1 is a share, else a count. Each class gives its share, rounded so that the count
    is met (largest remainders). Raises BadValueError where either side would be empty.
    """
    total = len(labels)
    count = round(part * total) if part < 1 else int(part)
    if not 0 < count < total or (part >= 1 and count != part):
        raise BadValueError(f"cannot hold out {part:g} of {total} points; give a share or a count")
    classes, sizes = labels.unique(return_counts=True)
    exact = sizes.double() * count / total
    quotas = exact.floor().long()
    short = count - int(quotas.sum())
    largest = torch.argsort(exact - quotas, descending=True, stable=True)[:short]
    quotas[largest] += 1
    shuffled = permutation(total, seed)
    heldout = torch.zeros(total, dtype=torch.bool)
    for label, quota in zip(classes, quotas, strict=True):
        heldout[shuffled[labels[shuffled] == label][:quota]] = True
    return (~heldout).nonzero().squeeze(1), heldout.nonzero().squeeze(1)
