"""Decoupled direction and norm: follow the gradient on a sphere that shrinks while it succeeds."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robustkit.attacks.pgd import objective_of
from robustkit.attacks.search import Search, annealed
from robustkit.component import slot
from robustkit.interfaces import Attack, Loss, Rng, Victim
from robustkit.threat import ThreatModel, per_point


class DDN(Attack):
    """DDN, Rony et al. 2019 (arXiv 1811.09600), algorithm 1, without its rounding to 8 bits.

    Proposes the smallest adversarial example found, only ever one of size at most eps, and the
    original where there is none. eps = inf takes any size.
    """

    name = "ddn"
    norms = ("l2",)
    minimal = True
    steps: int = Field(default=100, ge=1, description="gradient steps")
    step_size: float = Field(default=1.0, gt=0, description="l2 size of the first step")
    start: float = Field(default=1.0, gt=0, description="radius of the first sphere")
    gamma: float = Field(
        default=0.05, gt=0, lt=1, description="share by which the radius grows or shrinks"
    )
    loss: Loss = slot("cross-entropy", "what is ascended")

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
        radius = x.new_full((len(x),), min(self.start, threat.eps))
        anywhere = rng.normal(x.shape[1:], at="flat")
        for i in range(self.steps):
            _, gradient, logits = search.ascent(x_adv, objective, rows)
            misled = search.misled(logits, rows)
            radius = radius * torch.where(misled, 1 - self.gamma, 1 + self.gamma)
            radius = radius.clamp(max=threat.eps)
            left = search.accept(x_adv, logits, rows, threat)
            if len(left) < len(rows):
                kept = (rows, x_adv, gradient, radius)
                rows, x_adv, gradient, radius = (values[left] for values in kept)
                if not len(rows):
                    break
            step_size = self.step_size * annealed(1.0, 0.01, i / self.steps)
            direction = _unit(gradient, anywhere[rows])
            delta = threat.normalise(x_adv - x[rows] + step_size * direction)
            x_adv = threat.clamp(x[rows] + per_point(radius, x) * delta)
        return search.x_adv


def _unit(gradient: Tensor, otherwise: Tensor) -> Tensor:
    """Scale gradients (M, ...) to l2 size 1, however small; where one is 0, take another."""
    flat = gradient.flatten(1)
    most = flat.abs().amax(1, keepdim=True)
    flat = (flat / most).where(most > 0, otherwise.flatten(1))
    return torch.nn.functional.normalize(flat, dim=1).view_as(gradient)
