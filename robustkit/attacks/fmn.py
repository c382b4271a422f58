"""Fast minimum-norm: gradient steps in a ball whose radius follows the border."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robustkit.attacks.pgd import objective_of
from robustkit.attacks.search import Search, annealed
from robustkit.component import slot
from robustkit.interfaces import Attack, Loss, Rng, Victim
from robustkit.threat import ThreatModel, per_point


class FMN(Attack):
    """FMN, Pintor et al. 2021 (arXiv 2102.12827), algorithm 1, in linf, l2 and l1.

    Until a point is adversarial, the radius reaches just beyond the border as it looks from there,
    and never shrinks; then it shrinks on success and grows on failure. Proposes the smallest
    adversarial example found, only ever one of size at most eps, and the original where there is
    none. eps = inf takes any size.
    """

    name = "fmn"
    norms = ("linf", "l2", "l1")
    minimal = True
    steps: int = Field(default=100, ge=1, description="gradient steps")
    step_size: float = Field(default=1.0, gt=0, description="l2 size of the first step")
    gamma: float = Field(
        default=0.05, gt=0, lt=1, description="share by which the radius changes, at first"
    )
    loss: Loss = slot("margin", "what is ascended; its zero is taken for the border")

    @torch.no_grad()
    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        search = Search(self, victim, x, y, threat, target)
        objective = objective_of(self.loss, search, rng)
        rows, x_adv = search.rows, x
        radius = x.new_zeros(len(x))
        for i in range(self.steps):
            value, gradient, logits = search.ascent(x_adv, objective, rows)
            left = search.accept(x_adv, logits, rows, threat)
            if len(left) < len(rows):
                kept = (rows, x_adv, value, gradient, logits, radius)
                rows, x_adv, value, gradient, logits, radius = (v[left] for v in kept)
                if not len(rows):
                    break
            gamma = self.gamma * annealed(1.0, 0.02, i / self.steps)
            misled, best = search.misled(logits, rows), -search.loss[rows]
            to_border = value.abs() / (threat.dual_size(gradient) + 1e-12)
            beyond = threat.size(x_adv - x[rows]) + to_border
            grown = torch.maximum(radius, beyond.masked_fill(search.wrong[rows], 0)) * (1 + gamma)
            radius = torch.minimum(radius * (1 - gamma), best).where(misled, grown)
            radius = radius.clamp(max=threat.eps)
            step_size = self.step_size * annealed(1.0, 0.01, i / self.steps)
            length = gradient.flatten(1).norm(dim=1) + 1e-12
            x_adv = x_adv + gradient * per_point(step_size / length, x)
            x_adv = threat.project(x_adv, x[rows], radius)
        return search.x_adv
