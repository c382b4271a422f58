"""The fast adaptive boundary attack: the smallest perturbation, by steps to the border."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from robustkit.attacks.projections import step_to_plane
from robustkit.attacks.search import (
    Search,
    drawn,
    fewer_targets,
    ranked_targets,
    target_by_target,
)
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.losses.margin import lead, margin
from robustkit.threat import ThreatModel, per_point

Border = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Linearises a border at points (M, ...), rows (M,): values (M,), positive beyond, and slopes."""


class BoundaryAttack(Attack):
    """FAB, Croce and Hein 2020 (arXiv 1907.02044): what its two forms share.

    Proposes the smallest adversarial example found, only ever one of size at most eps, and the
    original where there is none. eps = inf takes any size.
    """

    norms = ("linf", "l2", "l1")
    minimal = True
    steps: int = Field(default=100, ge=1, description="steps to the border in each search")
    alpha_max: float = Field(default=0.1, ge=0, le=1, description="most weight of the original")
    eta: float = Field(default=1.05, ge=1, description="overshoot beyond the linearised border")
    beta: float = Field(default=0.9, gt=0, le=1, description="what is kept of a success's size")

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
        rows = search.rows
        logits = victim(x, rows)
        search.accept(x, logits, rows, threat)
        self._find(search, logits, threat, rng)
        return search.x_adv

    @abstractmethod
    def _find(self, search: Search, logits: Tensor, threat: ThreatModel, rng: Rng) -> None:
        """Search from where the clean logits (N, classes) say."""

    def _approach(
        self, search: Search, border: Border, x_adv: Tensor, rows: Tensor, threat: ThreatModel
    ) -> None:
        """Take the steps of one search."""
        for _ in range(self.steps):
            if not len(rows):
                return
            x_adv, rows = self._step(search, border, x_adv, rows, threat)

    def _step(
        self, search: Search, border: Border, x_adv: Tensor, rows: Tensor, threat: ThreatModel
    ) -> tuple[Tensor, Tensor]:
        """Step to the border as it looks from here, biased to where it is nearest the original."""
        value, gradient = border(x_adv, rows)
        x = search.x[rows]
        w, away = gradient.flatten(1), (x - x_adv).flatten(1)
        both = torch.cat((x_adv, x)).flatten(1)
        values = torch.cat((value, value + (w * away).sum(1)))
        steps = step_to_plane(both, torch.cat((w, w)), values, threat)
        size, size_at_x = threat.size(steps).clamp(min=1e-8).chunk(2)
        step, step_at_x = steps.view(2, *x.shape)
        # The border to a target bends: a piece of it says little of what is near the original.
        most = self.alpha_max if search.target is None else 0.0
        alpha = per_point((size / (size + size_at_x)).clamp(max=most), x)
        x_adv = threat.clamp(
            (1 - alpha) * (x_adv + self.eta * step) + alpha * (x + self.eta * step_at_x)
        )
        logits = search.victim(x_adv, rows)
        left = search.accept(x_adv, logits, rows, threat)
        back = per_point(search.misled(logits, rows), x)
        x_adv = (x + self.beta * (x_adv - x)).where(back, x_adv)
        return x_adv[left], rows[left]


def border_of_target(search: Search, to: Tensor) -> Border:
    """Linearise the border to the class `to` (N,): the label's, or of all where it is asked for."""

    def beyond(logits: Tensor, rows: Tensor) -> Tensor:
        if search.target is None:
            return lead(logits, search.label[rows], to[rows])
        return -margin(logits, to[rows])

    return lambda x_adv, rows: search.ascent(x_adv, beyond, rows)[:2]


def nearest_border(search: Search, threat: ThreatModel) -> Border:
    """Linearise the border of the label to whichever class it looks nearest to."""

    def border(x_adv: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        y = search.label[rows]
        with torch.enable_grad():
            x_adv = x_adv.detach().requires_grad_()
            logits = search.victim(x_adv, rows)
        nearest = logits.new_full((len(y),), torch.inf)
        value, slope = torch.zeros_like(nearest), torch.zeros_like(x_adv)
        if not logits.requires_grad:
            return value, slope
        others = ranked_targets(logits.detach(), y, logits.shape[1]).unbind(1)
        for k, other in enumerate(others, 1):
            with torch.enable_grad():
                beyond = lead(logits, y, other)
                (w,) = torch.autograd.grad(beyond.sum(), x_adv, retain_graph=k < len(others))
            beyond = beyond.detach()
            far = beyond.abs() / (threat.dual_size(w) + 1e-12)
            nearer = far < nearest
            nearest = far.where(nearer, nearest)
            value = beyond.where(nearer, value)
            slope = w.where(per_point(nearer, w), slope)
        return value, slope

    return border


class FAB(BoundaryAttack):
    """FAB, untargeted: each step is to the border that looks nearest.

    It starts at the original, and again from random points at half of eps, or of the smallest size
    found so far. With a target there is one border.
    """

    name = "fab"
    restarts: int = Field(default=1, ge=1, description="searches, the first from the original")

    def _find(self, search: Search, logits: Tensor, threat: ThreatModel, rng: Rng) -> None:
        if search.target is None:
            border = nearest_border(search, threat)
        else:
            border = border_of_target(search, search.target)
        for restart in range(self.restarts):
            rows = search.rows
            start = search.x[rows]
            if restart:
                draw = drawn(threat, rng[rows], start.shape[1:], ("start", restart))
                away = self._radius(search, rows, threat) * threat.normalise(draw)
                start = threat.clamp(start + away)
            self._approach(search, border, start, rows, threat)

    @staticmethod
    def _radius(search: Search, rows: Tensor, threat: ThreatModel) -> Tensor:
        """Give half of what is to be undercut (M, 1, ...); 0 where that is unbounded."""
        size = (-search.loss[rows]).clamp(max=threat.eps)
        return per_point(size.where(size.isfinite(), 0) / 2, search.x)


class FABTargeted(BoundaryAttack):
    """FAB, targeted: deterministic, from the original towards one class after the other.

    The targets are the wrong classes of highest clean logit, never more than classes - 1.
    """

    name = "fab-t"
    targets: int = Field(default=9, ge=1, description="wrong classes tried, by clean logit")

    def _find(self, search: Search, logits: Tensor, threat: ThreatModel, rng: Rng) -> None:
        if search.target is None:
            targets = ranked_targets(logits, search.label, self.targets)
        else:
            targets = search.target.unsqueeze(1)
        for together in target_by_target(self, search, targets, threat):
            border = border_of_target(together, together.to)
            self._approach(together, border, together.x, together.rows, threat)

    def remarks(self, classes: int, threat: ThreatModel) -> Sequence[str]:
        return fewer_targets(self.name, self.targets, classes)
