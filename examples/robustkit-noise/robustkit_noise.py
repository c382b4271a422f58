"""Noise as an attack: what a model loses without anybody looking for its weak spots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

import robustkit as rk

if TYPE_CHECKING:
    from torch import Tensor


@rk.hookimpl
def register_attacks() -> dict[str, str]:
    return {"noise": "robustkit_noise:Noise"}


class Noise(rk.Attack):
    """Random points of the ball (linf) or sphere (l2, l1); the worst of several draws is proposed.

    Far weaker than a search: a model that breaks here breaks in daily use.
    """

    name = "noise"
    norms = ("linf", "l2", "l1")
    weak = True
    draws: int = Field(default=20, ge=1, description="draws of noise for each point")
    loss: rk.Loss = rk.slot("margin", "the worst draw is the one where this is highest")

    def perturb(
        self,
        victim: rk.Victim,
        x: Tensor,
        y: Tensor,
        threat: rk.ThreatModel,
        rng: rk.Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        worst, highest = x, x.new_full((len(x),), -math.inf)
        for draw in range(self.draws):
            noisy = threat.random_start(x, rng, at=draw)
            logits = victim(noisy)
            value = self.loss(logits, y) if target is None else -self.loss(logits, target)
            worst = noisy.where(rk.per_point(value > highest, x), worst)
            highest = value.maximum(highest)
        return worst
