"""The cost of moving what a model predicts to the label, by a metric of labels."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from robustkit import At, BadValueError, Kit, LabelMetric, Loss, find_metric


def wasserstein_loss(
    logits: Tensor, y: Tensor, costs: Tensor | None = None, entropy: float = 0.0
) -> Tensor:
    """Give `costs[y] . p - entropy / log K  H(p)`, p = softmax(logits): (N,).

    `costs` (K, K) is the metric to its power; without it every error costs 1. To one label that is
    the exact Wasserstein distance (lemma 4); to a soft one (N, K) the mean over its classes, which
    is an upper bound of it. Terzi et al. 2020 (arXiv 1910.03468), definition 5.
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    loss = (of_label(logits, y, costs) * p).sum(1)
    return loss + entropy / math.log(logits.shape[1]) * (p * log_p).sum(1)


def log_cost(logits: Tensor, y: Tensor, costs: Tensor | None = None) -> Tensor:
    """Give the logarithm of `costs[y] . softmax(logits)`: (N,), 0 where nothing costs anything.

    It grows where the cost does and never flattens, however sure the model is.
    """
    of_y = of_label(logits, y, costs)
    costly = of_y.any(1)
    # A row of which nothing costs anything would be infinite, and its gradient no number.
    log_costs = of_y.where(costly.unsqueeze(1), of_y.new_ones(())).log()
    found = (log_costs + logits.log_softmax(1)).logsumexp(1)
    return found.where(costly, found.new_zeros(()))


def of_label(logits: Tensor, y: Tensor, costs: Tensor | None) -> Tensor:
    """Give what each prediction costs (N, K), of labels (N,) or soft ones (N, K)."""
    if costs is None:
        costs = 1 - torch.eye(logits.shape[1], device=logits.device)
    costs = costs.to(logits)
    return costs[y] if y.dim() == 1 else y.to(logits) @ costs


class Wasserstein(Loss):
    """What it costs to move the predicted distribution to the label, by a metric of labels.

    Terzi et al. 2020 (arXiv 1910.03468), definition 5. Without a metric every error costs 1, and
    the loss is 1 - p_y. Attacks ascend its logarithm, which leads the same way and does not vanish
    where the model is sure; with an entropy term they ascend the loss itself.
    """

    name = "wasserstein"
    metric: str = Field(
        default="",
        description="a file of costs (.csv), or a shipped metric such as wordnet-cifar10; its rows"
        " are the classes, by name where names are known; empty: every error costs 1",
    )
    power: float = Field(default=1.0, ge=0, description="p, to which each cost is raised")
    entropy: float = Field(
        default=0.0,
        ge=0,
        description="1 / lambda, the weight of the predictions' entropy; ascended, it drives sure"
        " points back to their own class",
    )
    _costs: Tensor | None = PrivateAttr(default=None)

    def prepare(self, kit: Kit) -> None:
        if self.metric:
            self._costs = self._matrix(find_metric(self.metric).reordered(kit.classes))

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return wasserstein_loss(logits, y, self._of(logits), self.entropy)

    def ascend(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return self(logits, y, at) if self.entropy else log_cost(logits, y, self._of(logits))

    def _of(self, logits: Tensor) -> Tensor | None:
        """Give the costs (K, K) of a model's classes; None where all errors cost 1."""
        if not self.metric:
            return None
        if self._costs is None:
            self._costs = self._matrix(find_metric(self.metric))
        if len(self._costs) != logits.shape[1]:
            raise BadValueError(
                f"metric '{self.metric}' is of {len(self._costs)} classes, the model has"
                f" {logits.shape[1]}"
            )
        self._costs = self._costs.to(logits.device)  # once, not in each step of an attack
        return self._costs

    def _matrix(self, metric: LabelMetric) -> Tensor:
        return torch.from_numpy(metric.power(self.power))
