"""How far two predictions are apart, from their logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Give KL(softmax p || softmax q) in nats (N,) of logits (N, classes)."""
    log_p, log_q = p.float().log_softmax(1), q.float().log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def js(p: Tensor, q: Tensor) -> Tensor:
    """Give the Jensen-Shannon divergence of softmax p and softmax q (N,), at most log 2 nats."""
    log_p, log_q = p.float().log_softmax(1), q.float().log_softmax(1)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    both = [F.kl_div(middle, log, reduction="none", log_target=True) for log in (log_p, log_q)]
    return (both[0] + both[1]).sum(1) / 2
