"""A softmax seen from one point: its slopes, exact however sure the model is.

The rows of `T = d alpha / d x`, alpha = softmax(z) (Huang et al. 2015, section 2) are weighted sums
of the logits' gradients. Made in float32 they point anywhere once `alpha_y` rounds to 1, and vanish
where logits are 100 apart. So the weights are made in float64 and divided by `1 - alpha_y`, which
no direction depends on, and the model goes backward from those.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_odds_weights(logits: Tensor, y: Tensor) -> Tensor:
    """Give what the log-odds of class y weigh each logit with: (N, classes), of float64.

    `d log(alpha_y / (1 - alpha_y)) = d alpha_y / (alpha_y (1 - alpha_y))`, so that their gradient
    points along T_y.
    """
    own = torch.zeros_like(logits, dtype=torch.float64).scatter_(1, y.unsqueeze(1), 1.0)
    return own - others(logits, y)


def rival_weights(logits: Tensor, y: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor]:
    """Give `alpha_j - alpha_y` (K, N) for rivals j (N, K), and what it weighs each logit with.

    The weights (K, N, classes), whose gradients point along T_j - T_y, are divided by
    `1 - alpha_y`. Both are of float64.
    """
    q, own = others(logits, y), y.unsqueeze(1)
    odds = logits.double().gather(1, own) - _log_sum_of_others(logits, y)
    alpha_y, rest = odds.sigmoid(), (-odds).sigmoid()
    q_j = q.gather(1, rivals)
    alpha_j = rest * q_j
    weights = q.unsqueeze(1) * (alpha_y - alpha_j).unsqueeze(2)
    weights = weights.scatter(2, rivals.unsqueeze(2), (q_j * (1 - alpha_j + alpha_y)).unsqueeze(2))
    weights = weights.scatter(
        2, own.unsqueeze(1).expand(-1, rivals.shape[1], 1), (-alpha_y * (1 + q_j)).unsqueeze(2)
    )
    return weights.transpose(0, 1), (alpha_j - alpha_y).T


def others(logits: Tensor, y: Tensor) -> Tensor:
    """Give the softmax over all classes but y: (N, classes), of float64, 0 at y."""
    return logits.double().scatter(1, y.unsqueeze(1), -torch.inf).softmax(1)


def _log_sum_of_others(logits: Tensor, y: Tensor) -> Tensor:
    return logits.double().scatter(1, y.unsqueeze(1), -torch.inf).logsumexp(1, keepdim=True)
