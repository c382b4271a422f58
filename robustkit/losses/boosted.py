"""Cross-entropy with a margin, as MART has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robustkit.interfaces import At, Loss, hard_labels


class BoostedCrossEntropy(Loss):
    """`-log p_y - log(1 - p_k)`, k the most probable other class: a wrong lead costs twice.

    Of soft labels the second term takes y as the class of most weight. Wang et al. 2020
    (Improving Adversarial Robustness Requires Revisiting Misclassified Examples), equation 7.
    """

    name = "boosted-cross-entropy"

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        rival = logits.scatter(1, hard_labels(y).unsqueeze(1), -torch.inf).argmax(1, keepdim=True)
        # The probability of all classes but the rival; 1 - p_k would round to 0.
        others = logits.scatter(1, rival, -torch.inf).logsumexp(1) - logits.logsumexp(1)
        return F.cross_entropy(logits, y, reduction="none") - others
