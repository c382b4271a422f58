"""Losses of logit differences: positive exactly where the prediction is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from robustkit.errors import BadValueError
from robustkit.interfaces import At, Loss, hard_labels

DLR_CLASSES = 3
"""DLR's scale is the distance of the largest from the third largest logit."""
TARGETED_DLR_CLASSES = 4
"""Targeted DLR's scale needs the third and the fourth largest logit."""

TINY = 1e-12


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Give the largest other logit minus the true one (N,), for labels y (N,)."""
    true = logits.gather(1, y.unsqueeze(1))
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return others.amax(1) - true.squeeze(1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Give the margin over the distance of the largest from the third largest logit (N,).

    Needs three classes. Croce and Hein 2020 (arXiv 2003.01690), equation 6.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Give the scaled lead of the target's logit over the true one's (N,).

    Needs four classes. Croce and Hein 2020 (arXiv 2003.01690), equation 7.
    """
    top = logits.topk(4, dim=1).values
    return lead(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Give the target's logit minus the true one (N,)."""
    pair = logits.gather(1, torch.stack((target, y), 1))
    return pair[:, 0] - pair[:, 1]


class Margin(Loss):
    """The largest other logit minus the true one: what an attack ascends until it is positive.

    Of soft labels the class of most weight counts.
    """

    name = "margin"

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return margin(logits, hard_labels(y))


class DLR(Loss):
    """The difference of logits ratio: a margin that ignores shift and scale of the logits.

    Of soft labels the class of most weight counts. Raises BadValueError below three classes.
    Croce and Hein 2020 (arXiv 2003.01690), equation 6.
    """

    name = "dlr"

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        if logits.shape[1] < DLR_CLASSES:
            raise BadValueError(
                f"loss 'dlr' needs {DLR_CLASSES} classes, the model has {logits.shape[1]}; "
                "use 'margin'"
            )
        return dlr(logits, hard_labels(y))
