"""Adversarial training."""

from __future__ import annotations

from torch import nn

from robustkit.component import slot
from robustkit.interfaces import Attack, Batch, Clock, Loss, Terms, Trainer


class Adversarial(Trainer):
    """Minimise a loss where an attack moved the points: the perturbed batch only.

    Madry et al. 2018 (arXiv 1706.06083), equation 2.1.
    """

    name = "adversarial"
    attack: Attack = slot("pgd", "moves the points, under the recipe's threat")
    loss: Loss = slot("cross-entropy", "what is minimised there")

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        return batch.moved(self._kit.perturb(self.attack, model, batch, clock))

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        logits = model(batch.x)
        return Terms(self.loss(logits, batch.y, self._kit.at(batch, clock)), logits)
