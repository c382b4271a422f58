"""Training on the points as they are."""

from __future__ import annotations

from torch import nn

from robustkit.component import slot
from robustkit.interfaces import Batch, Clock, Loss, Terms, Trainer


class Standard(Trainer):
    """Minimise a loss on the points of the data set, unperturbed."""

    name = "standard"
    loss: Loss = slot("cross-entropy", "what is minimised")

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        logits = model(batch.x)
        return Terms(self.loss(logits, batch.y, self._kit.at(batch, clock)), logits)
