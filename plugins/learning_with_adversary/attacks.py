"""The paper's attacks: each takes the step that is best for the softmax as seen from the point."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from robustkit import Attack, BadValueError, Rng, ThreatModel, Victim, per_point

from .softmax import log_odds_weights, rival_weights

ROUNDING = 1e-5
"""The lead, relative to the largest logit, that a wrong class must have to be sure of it."""
FIRST, DOUBLINGS = 1 / 64, 12
"""The search for the smallest size begins where each pixel moves by this much, and doubles it."""
ROWS = 2048
"""Rows of a backward pass over several classes at once: what bounds its memory."""


class Linearised(Attack):
    """A direction, and a step along it that uses up the budget.

    With eps = inf the smallest step along the direction that misleads the model is looked for, by
    doubling and halving; where there is none the image stays.
    """

    norms = ("linf", "l2", "l1")
    minimal = True
    halvings: int = Field(
        default=16, ge=1, description="of the interval of the smallest size, where eps is inf"
    )

    def direction(
        self, victim: Victim, x: Tensor, y: Tensor, threat: ThreatModel, target: Tensor | None
    ) -> Tensor:
        """Give where to go (N, C, H, W), of any length."""
        raise NotImplementedError

    def reach(
        self, direction: Tensor, x: Tensor, threat: ThreatModel, size: Tensor | None = None
    ) -> Tensor:
        """Go as far as a size (N,), else the threat's."""
        return threat.farthest(direction, x, size)

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
        direction = self.direction(victim, x, y, threat, target)
        if math.isfinite(threat.eps):
            return self.reach(direction, x, threat)
        high = threat.size(torch.full_like(x, FIRST))
        low = torch.zeros_like(high)
        for _ in range(DOUBLINGS):
            misled = _misled(victim(self.reach(direction, x, threat, high)), y, target)
            if misled.all():
                break
            low, high = high.where(~misled, low), (2 * high).where(~misled, high)
        for _ in range(self.halvings):
            middle = (low + high) / 2
            here = _misled(victim(self.reach(direction, x, threat, middle)), y, target)
            low, high = middle.where(~here, low), middle.where(here, high)
        return self.reach(direction, x, threat, high).where(per_point(misled, x), x)


class AdvLoss(Linearised):
    """Down the slope of the label's probability, `-T_y`: whatever loss falls with it rises.

    Huang et al. 2015 (arXiv 1511.03034), section 3.1.1, whose printed sign is that of ascent.
    """

    name = "adv-loss"

    def direction(
        self, victim: Victim, x: Tensor, y: Tensor, threat: ThreatModel, target: Tensor | None
    ) -> Tensor:
        logits, x = _look(victim, x)
        if target is None:
            return _slopes(logits, x, -log_odds_weights(logits, y).unsqueeze(0))[0]
        return _slopes(logits, x, log_odds_weights(logits, target).unsqueeze(0))[0]


class AdvLossSign(AdvLoss):
    """The signs of `-T_y`, in every norm: the fast gradient sign method, scaled to the budget.

    Huang et al. 2015 (arXiv 1511.03034), section 4.1, whose tables scale it to an l2 norm.
    """

    name = "adv-loss-sign"
    weak = True  # in l2 and l1 another direction of the same size gains more

    def reach(
        self, direction: Tensor, x: Tensor, threat: ThreatModel, size: Tensor | None = None
    ) -> Tensor:
        return threat.along(direction.sign(), x, size)


class AdvAlpha(Linearised):
    """Towards the nearest class, as the linearised softmax has it: the least r with a_j = a_y.

    For each rival j the least perturbation that lifts its probability to that of the label is
    `(a_y - a_j) / |T_j - T_y|_*` along `T_j - T_y`; the direction is that of the smallest one.
    Takes a backward pass for each class but one. A point that is wrong already is pushed as by
    `adv-loss`. Huang et al. 2015 (arXiv 1511.03034), propositions 2.1 and 2.2, algorithm 1.
    """

    name = "adv-alpha"

    def direction(
        self, victim: Victim, x: Tensor, y: Tensor, threat: ThreatModel, target: Tensor | None
    ) -> Tensor:
        if target is not None:
            raise BadValueError(f"attack '{self.name}' takes no target; 'adv-loss' does")
        logits, x = _look(victim, x)
        others = torch.arange(logits.shape[1] - 1, device=x.device)
        weights, lead = rival_weights(logits, y, others + (others >= y.unsqueeze(1)))
        right = logits.argmax(1) == y
        weights = weights.where(right.unsqueeze(1), -log_odds_weights(logits, y))
        slopes = _slopes(logits, x, weights)
        sizes = torch.stack([least(v, s, threat) for v, s in zip(lead, slopes, strict=True)])
        return slopes[sizes.argmin(0), torch.arange(len(x), device=x.device)]


def least(lead: Tensor, slope: Tensor, threat: ThreatModel) -> Tensor:
    """Give the size (N,) at which a lead (N,) below 0 is made up, along a slope (N, ...).

    The perturbation is that size times `threat.steepest(slope)`: proposition 2.1.
    """
    return -lead / threat.dual_size(slope.double())


def _look(victim: Victim, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give the logits of points, and the points that they can be followed back to."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return victim(x), x


def _slopes(logits: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Give the gradients (K, N, ...) of K weighted sums of logits, weights (K, N, classes)."""

    def pull(along: Tensor) -> Tensor:
        return torch.autograd.grad(logits, x, along, retain_graph=True)[0]

    weights = weights.to(logits)
    if len(weights) == 1:
        return pull(weights[0]).unsqueeze(0)
    return torch.func.vmap(pull, chunk_size=max(1, ROWS // len(x)))(weights)


def _misled(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Say where the prediction is what the attack wants, by more than rounding: (N,) of bool."""
    label = (y if target is None else target).unsqueeze(1)
    lead = logits.gather(1, label).squeeze(1) - logits.scatter(1, label, -torch.inf).amax(1)
    return (-lead if target is None else lead) > ROUNDING * logits.abs().amax(1)
