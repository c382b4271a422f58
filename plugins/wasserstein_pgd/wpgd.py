"""Projected gradient ascent on the Wasserstein loss, and training against it."""

from __future__ import annotations

import torch
from torch import Tensor

from robustkit import PGD, Adversarial, Attack, Loss, Rng, ThreatModel, Victim, slot

from .loss import Wasserstein


class Costly:
    """A victim of which no point is done: one that is wrong may still be wrong at more cost."""

    def __init__(self, victim: Victim) -> None:
        self.victim = victim

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.victim(x, rows)

    def done(self, logits: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)

    def void(self, passes: Tensor, rows: Tensor) -> None:
        self.victim.void(passes, rows)

    def late(self, rows: Tensor) -> None:
        self.victim.late(rows)

    def most(self, x: Tensor) -> int:
        return self.victim.most(x)


class WPGD(PGD):
    """PGD that ascends what an error costs; with a metric it goes on where a point is wrong.

    Terzi et al. 2020 (arXiv 1910.03468), definition 6; 20 steps in evaluation.
    """

    name = "wpgd"
    loss: Loss = slot("wasserstein", "what is ascended; its metric says what an error costs")

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        if isinstance(self.loss, Wasserstein) and self.loss.metric:
            victim = Costly(victim)
        return super().perturb(victim, x, y, threat, rng, target)


class WassersteinTraining(Adversarial):
    """Minimise cross-entropy where the attack that knows the costs moved the points.

    Classes that are cheap to confuse may stay near each other. Terzi et al. 2020 (arXiv
    1910.03468), definition 6, with 8 steps.
    """

    name = "wpgd"
    attack: Attack = slot({"name": "wpgd", "steps": 8}, "moves the points")
