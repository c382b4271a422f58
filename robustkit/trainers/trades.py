"""TRADES: accuracy on clean points against the distance that an adversary can make."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from robustkit.component import slot
from robustkit.interfaces import Attack, Batch, Clock, Loss, Terms, Trainer
from robustkit.losses.divergence import kl


class Trades(Trainer):
    """Minimise `loss(f(x), y) + beta KL(f(x) || f(x'))`; x' is where that divergence is largest.

    Zhang et al. 2019 (arXiv 1901.08573), equation 5, as its code has it: gradients flow through
    both sides, and the search starts beside the point, for at the point itself the divergence has
    no slope (so let another `attack` start at random, too). An attack that knows hard labels only
    ascends its own loss at the class predicted for x. The training accuracy is that of clean
    points, where `loss` is asked.
    """

    name = "trades"
    attack: Attack = slot({"name": "pgd", "steps": 10, "noise": 0.001}, "moves the points")
    loss: Loss = slot("cross-entropy", "what is minimised at the clean points")
    beta: float = Field(default=6.0, ge=0, description="weight of the divergence, 1 / lambda")

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        with torch.no_grad():
            # Cross-entropy with these labels has the gradient of the divergence from them.
            predicted = model(batch.x).float().softmax(1)
        there = batch.replace(y=predicted)
        return batch.moved(self._kit.perturb(self.attack, model, there, clock))

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        logits = model(batch.x if batch.clean is None else batch.clean)
        divergence = kl(logits, model(batch.x))
        loss = self.loss(logits, batch.y, self._kit.at(batch, clock)) + self.beta * divergence
        return Terms(loss, logits, {"divergence": divergence})
