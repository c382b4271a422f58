"""DeepFool: straight to the nearest border as it looks from here, until it is crossed."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from robustkit.attacks.fab import border_of_target, nearest_border
from robustkit.attacks.projections import step_to_plane
from robustkit.attacks.search import Search
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.threat import ThreatModel

BEYOND = 1e-4
"""Added to the size of each step, as the authors' code does: steps that the box shortens would only
come ever nearer to a border."""


class DeepFool(Attack):
    """DeepFool, Moosavi-Dezfooli et al. 2016 (arXiv 1511.04599), algorithm 2 and section 3.3.

    Each step is the smallest one to the border that looks nearest, then clamped to the box; the
    first point beyond a border is proposed if its size is at most eps, else the original. eps = inf
    takes any size. With a target there is one border.
    """

    name = "deepfool"
    norms = ("linf", "l2")
    minimal = True
    steps: int = Field(default=50, ge=1, description="most steps to the border")
    overshoot: float = Field(default=0.02, ge=0, description="how far beyond, as a share of a step")

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
        if search.target is None:
            border = nearest_border(search, threat)
        else:
            border = border_of_target(search, search.target)
        free = ThreatModel(threat.norm, threat.eps, -math.inf, math.inf)
        x_adv, rows = self._left(search, x, search.rows, threat)
        for _ in range(self.steps):
            if not len(rows):
                break
            value, w = border(x_adv, rows)
            value = value - BEYOND * threat.dual_size(w)
            step = step_to_plane(x_adv.flatten(1), w.flatten(1), value, free).view_as(x_adv)
            x_adv = threat.clamp(x_adv + (1 + self.overshoot) * step)
            x_adv, rows = self._left(search, x_adv, rows, threat)
        return search.x_adv

    @staticmethod
    def _left(
        search: Search, x_adv: Tensor, rows: Tensor, threat: ThreatModel
    ) -> tuple[Tensor, Tensor]:
        """Take what lies beyond a border; give the points and rows that do not."""
        logits = search.victim(x_adv, rows)
        search.accept(x_adv, logits, rows, threat)
        left = (~search.misled(logits, rows)).nonzero().squeeze(1)
        return x_adv[left], rows[left]
