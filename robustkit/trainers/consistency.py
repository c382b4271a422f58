"""Adversarial training with consistency between two views of each point."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from robustkit.component import slot
from robustkit.interfaces import Attack, Batch, Clock, Terms
from robustkit.losses.divergence import js
from robustkit.trainers.adversarial import Adversarial


class Consistency(Adversarial):
    """Attack two augmentations of each point; minimise their losses and how far they disagree.

    `(loss_1 + loss_2) / 2 + weight JS(f_1 / temperature, f_2 / temperature)`, against robust
    overfitting: Tack et al. 2022 (arXiv 2103.04454), equation 5. Views are made by the recipe's
    `fit.augment`; without it they differ by the attack's start alone.
    """

    name = "consistency"
    attack: Attack = slot({"name": "pgd", "steps": 10}, "moves both views")
    weight: float = Field(default=1.0, ge=0, description="weight of the disagreement")
    temperature: float = Field(default=0.5, gt=0, description="of the predictions compared")

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        other = batch.replace(x=self._kit.augmented(batch, clock, self.name))
        twin = self._kit.perturb(self.attack, model, other, clock, self.name)
        return super().adversary(model, batch, clock).replace(twin=twin)

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        twin = batch.x if batch.twin is None else batch.twin
        logits, other = model(torch.cat((batch.x, twin))).chunk(2)
        first = self.loss(logits, batch.y, self._kit.at(batch, clock))
        second = self.loss(other, batch.y, self._kit.at(batch, clock, self.name))
        apart = js(logits / self.temperature, other / self.temperature)
        return Terms((first + second) / 2 + self.weight * apart, logits, {"divergence": apart})
