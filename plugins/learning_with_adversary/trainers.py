"""Training against the paper's attacks: on the input, or on what the model makes of it inside."""

from __future__ import annotations

import math

from pydantic import Field
from torch import nn

from robustkit import Adversarial, Attack, Batch, Clock, Terms, ThreatModel, slot

from .parts import Parts


class LWA(Adversarial):
    """Minimise a loss where the attack moved the points, the whole batch of them.

    Huang et al. 2015 (arXiv 1511.03034), algorithm 2.
    """

    name = "lwa"
    attack: Attack = slot("adv-loss", "moves the points, under the recipe's threat")


class LWARepresentation(LWA):
    """Minimise a loss where the attack moved what a layer makes of the points.

    The move is added to the layer's output and held fixed, so that gradients reach the layers on
    both sides. All that a model knows of a point must go through the layer. Huang et al. 2015
    (arXiv 1511.03034), algorithm 3.
    """

    name = "lwa-representation"
    eps: float = Field(
        default=1.0, ge=0, description="size of a move of the layer's output, in the threat's norm"
    )
    layer: str = Field(
        default="",
        description="a layer by its path, such as net.layer1; else what reaches the model's `head`",
    )

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        parts = Parts(model, self.layer, batch.x)
        if clock.step == 0:
            parts.check(batch.x)
        inside = batch.replace(x=parts.lower(batch.x).detach())
        threat = ThreatModel(self._kit.threat.norm, self.eps, -math.inf, math.inf)
        moved = self._kit.perturb(self.attack, parts, inside, clock, threat=threat)
        return batch.replace(shift=moved - inside.x)

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        shift = batch.x.new_zeros(()) if batch.shift is None else batch.shift
        logits = Parts(model, self.layer, batch.x).shifted(batch.x, shift)
        return Terms(self.loss(logits, batch.y, self._kit.at(batch, clock)), logits)


class Goodfellow(Adversarial):
    """Minimise `alpha loss(x) + (1 - alpha) loss(x')`, x' by the fast gradient sign method.

    Goodfellow et al. 2015 (arXiv 1412.6572), section 6, with alpha 0.5.
    """

    name = "goodfellow"
    attack: Attack = slot("fgsm", "moves the points, under the recipe's threat")
    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the points as they are")

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        at = self._kit.at(batch, clock)
        clean = self.loss(model(batch.x if batch.clean is None else batch.clean), batch.y, at)
        logits = model(batch.x)
        loss = self.loss(logits, batch.y, at)
        return Terms(self.alpha * clean + (1 - self.alpha) * loss, logits)
