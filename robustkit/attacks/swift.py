"""Swift: what AutoAttack asks, at a tenth of its passes, by searching where it pays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robustkit.attacks.apgd import APGD, APGDCE, WIDER
from robustkit.attacks.ensemble import Ensemble
from robustkit.attacks.search import Among, Search, drawn, ranked_targets
from robustkit.attacks.square import Square
from robustkit.interfaces import Attack, Rng, Spent, Victim
from robustkit.losses.margin import lead, margin
from robustkit.threat import ThreatModel

SHRINKING = (APGDCE(steps=20), APGDCE(steps=20, shrink=True), APGDCE(steps=50, shrink=True))
AWAY: dict[str, tuple[APGD, ...]] = {
    "linf": (APGDCE(steps=50),),
    "l2": SHRINKING,
    "l1": SHRINKING,
}
"""The searches of every point, away from its class; in l2 and l1 shrinking balls break more."""
TOWARDS: dict[str, APGD] = {
    "linf": APGDCE(steps=100),
    "l2": SHRINKING[-1],
    "l1": SHRINKING[-1],
}
"""Each later search, towards one other class."""
WORTH = (0.25, 0.2, 0.15, 0.1, 0.05, 0.05, 0.05, 0.05)
"""The share of its clean margin that a point may have left to be searched so once more."""
NEAREST = 3
"""How many other classes the searches go to in turn."""
SHARP = 5.0
"""The clean margin to which logits are scaled before the cross-entropy, which is blind at 20."""
TRIAL = APGDCE(steps=10)
"""The search that shows whether the margin grows as its gradient promises."""
FAR_OFF = 4.0
"""How many times less or more than promised is a sign that gradients are masked."""


class Closest(Search):
    """A search that knows how close it came: the highest margin (N,) of each point's proposals.

    A margin is negative where the attack does not have what it wants. `logits` (N, classes) are
    those there; `clean` (N,) is the margin of the original, `slope` its gradient like x, or None
    where none reaches the image.
    """

    slope: Tensor | None = None

    def begin(self) -> None:
        """Look at the originals, and let go of those that are wrong."""
        rows = self.rows
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            logits = self.victim(x, rows)
            if logits.requires_grad:
                value = self.measure(logits, rows)
                (self.slope,) = torch.autograd.grad(value.sum(), x)
        self.logits = logits.detach().clone()
        self.margin = self.measure(self.logits, rows)
        self.clean = self.margin.clone()
        self.settle(self.x, self.logits, rows)

    def measure(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Give margins (M,)."""
        if self.target is None:
            return margin(logits, self.label[rows])
        return -margin(logits, self.target[rows])

    def offer(self, x_adv: Tensor, loss: Tensor, misled: Tensor, rows: Tensor) -> None:
        """Take nothing: the losses of different searches say nothing of which came closer."""

    def settle(self, x_adv: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        seen, known = self.measure(logits, rows), self.margin[rows]
        closer = seen > known
        self.margin[rows] = seen.where(closer, known)
        self.logits[rows] = logits.where(closer.unsqueeze(1), self.logits[rows])
        self._take(closer, x_adv, rows)
        return super().settle(x_adv, logits, rows)


class Climbs(Attack):
    """Auto-PGD up the cross-entropy, then to one class after the other, where that may yet pay.

    The classes come in the order of their logits where the first searches came closest. A point is
    given up once more of its clean margin is left than WORTH says.
    """

    name = "swift-climbs"
    norms = ("linf", "l2", "l1")
    searches: int = Field(
        default=len(WORTH), ge=0, le=len(WORTH), description="towards other classes, at most"
    )

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
        search = Closest(self, victim, x, y, threat, target)
        search.begin()
        if search.slope is None:
            return search.x_adv
        scale = SHARP / search.clean.abs().clamp(min=torch.finfo(x.dtype).tiny)
        wanted = search.label if target is None else target
        sign = 1 if target is None else -1

        def away(logits: Tensor, rows: Tensor) -> Tensor:
            scaled = logits * scale[rows].unsqueeze(1)
            return sign * F.cross_entropy(scaled, wanted[rows], reduction="none")

        for turn, climb in enumerate(AWAY[threat.norm]):
            climb.run(search, away, threat, drawn(threat, rng, x.shape[1:], ("away", turn)))
        targets = wanted.unsqueeze(1)
        if target is None:
            targets = ranked_targets(search.logits, search.label, NEAREST)
        for turn, worth in enumerate(WORTH[: self.searches]):
            search.over |= search.margin / search.clean > worth
            to = targets[:, turn % targets.shape[1]]

            def towards(logits: Tensor, rows: Tensor, to: Tensor = to) -> Tensor:
                return lead(logits, search.label[rows], to[rows])

            draw = drawn(threat, rng, x.shape[1:], ("towards", turn))
            TOWARDS[threat.norm].run(search, towards, threat, draw)
        return search.x_adv

    def most(self, threat: ThreatModel) -> int:
        """Give the gradients that are taken of a point that is never given up."""
        climbs = [*AWAY[threat.norm], *[TOWARDS[threat.norm]] * self.searches]
        return 1 + sum(c.steps + 1 + len(WIDER) * c.shrink for c in climbs)


class MaskedSquare(Square):
    """Square, but only on points where the margin does not grow as its gradient promises."""

    name = "swift-square"

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
        search = Closest(self, victim, x, y, threat, target)
        search.begin()
        if search.slope is not None:
            search.over |= self._sound(search, search.slope, threat)
        if len(rows := search.rows):
            to = None if target is None else target[rows]
            among = Among(victim, rows)
            search.x_adv[rows] = super().perturb(among, x[rows], y[rows], threat, rng[rows], to)
        return search.x_adv

    @staticmethod
    def _sound(search: Closest, slope: Tensor, threat: ThreatModel) -> Tensor:
        """Climb the margin for a while, and say where it grows about as a linear one would (N,)."""
        step = threat.farthest(slope, search.x) - search.x
        promised = (step * slope).flatten(1).sum(1)
        TRIAL.run(search, search.measure, threat, step)
        gained = search.margin - search.clean
        return (gained > promised / FAR_OFF) & (gained < promised * FAR_OFF)


class Swift(Ensemble):
    """Auto-PGD where it may yet pay, and Square where gradients look masked: an upper bound.

    Of our own making, and no standard protocol. Early exit, targets in order of margin and points
    given up far from the border are known from Gao et al. 2022 (arXiv 2206.07282) and Liu et al.
    2022 (2203.05154).
    """

    name = "swift"
    searches: int = Field(
        default=len(WORTH), ge=0, le=len(WORTH), description="towards other classes, at most"
    )
    queries: int = Field(
        default=5000, ge=1, description="patches tried on points whose gradients look masked"
    )

    def parts(self, classes: int, threat: ThreatModel) -> Sequence[Attack]:
        return Climbs(searches=self.searches), MaskedSquare(queries=self.queries)

    def remarks(self, classes: int, threat: ThreatModel) -> Sequence[str]:
        return (
            "swift: no standard protocol; its robust accuracy is an upper bound, and autoattack's "
            "may be lower",
        )

    def findings(self, spent: Sequence[Spent], threat: ThreatModel) -> Sequence[str]:
        climbs, square = spent
        left = ~climbs.broken
        early = left & (climbs.backwards < Climbs(searches=self.searches).most(threat))
        # A query of square has no gradient; every other look has one, if the model gives any.
        queried = square.forwards > square.backwards + 1
        masked = int(queried.sum())
        given_up = (
            f"swift: {int(early.sum())} of {int(left.sum())} points that its climbs left robust "
            "were given up early, for they stayed far from the border"
        )
        if not masked:
            return given_up, "swift: square was left out, for gradients look masked on no point"
        return given_up, (
            f"swift: gradients look masked on {masked} of {len(queried)} points; square was brought"
            f" there, and broke {int((square.broken & queried).sum())}: believe autoattack more"
        )
