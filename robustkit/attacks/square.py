"""The Square attack: random search by patches, without gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from types import EllipsisType

import torch
from pydantic import Field
from torch import Tensor

from robustkit.attacks.search import Search
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.losses.margin import margin
from robustkit.threat import ThreatModel, per_point

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries, of any number, after which the patch's share of the image is halved."""

TINY = 1e-12


def share(query: int, p_init: float) -> float:
    """Give the share of the image that the patch of a query (from 0) covers, before rounding."""
    return p_init / 2 ** sum(query > after for after in HALVED_AFTER)


def signs(draws: Tensor) -> Tensor:
    """Turn uniform draws into -1 or 1."""
    return (draws >= 0.5).to(draws) * 2 - 1


def window(draws: Sequence[float], side: int, x: Tensor) -> tuple[EllipsisType, slice, slice]:
    """Place a square in images by two uniform draws; the last offset is never reached."""
    top, left = (int(draw * (size - side)) for draw, size in zip(draws, x.shape[2:], strict=True))
    return ..., slice(top, top + side), slice(left, left + side)


def linf_start(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """Start from vertical stripes of plus and minus eps, a sign for each point, channel, column."""
    _, c, _, w = x.shape
    stripes = signs(rng.uniform((c, 1, w), at="stripes"))
    return threat.project(x + threat.eps * stripes, x)


def linf_patch(
    x: Tensor, x_adv: Tensor, threat: ThreatModel, rng: Rng, query: int, side: int
) -> Tensor:
    """Move a square to one end of the ball in each channel: the same for all points."""
    c = x.shape[1]
    draws = rng.shared.uniform((2 + c,), at=("patch", query))
    at = window(draws[:2].tolist(), side, x)
    ends = 2 * threat.eps * signs(draws[2:]).view(c, 1, 1)
    proposed = x_adv.clone()
    proposed[at] = threat.project(proposed[at] + ends, x[at])
    return proposed


def pyramid(height: int, width: int) -> Tensor:
    """Give rings around the middle, ring k of height 1/k^2 + 1/(k+1)^2 + ..., of l2 size 1."""
    rows = (torch.arange(height) - height // 2).abs().unsqueeze(1)
    columns = (torch.arange(width) - width // 2).abs()
    rings = torch.arange(max(height, width) // 2 + 1, 0, -1)
    heights = (1 / rings**2).cumsum(0).flip(0)[torch.maximum(rows, columns)]
    return heights / heights.norm().clamp(min=TINY)


@cache
def bump(side: int) -> Tensor:
    """Give the l2 patch (side, side) of size 1: a pyramid above, and its negative below."""
    patch = torch.cat((pyramid(side // 2, side), -pyramid(side - side // 2, side)))
    return patch / patch.norm()


def turned_bump(side: int, draw: float, x: Tensor) -> Tensor:
    """Give the patch upright or on its side."""
    return (bump(side).T if draw > 0.5 else bump(side)).to(x)


def l2_start(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """Start from a grid of some five by five patches, a sign for each point, channel and patch."""
    _, c, h, w = x.shape
    side = max(h // 5, 1)
    edge = max(h - 5 * side, 0) // 2
    turns = rng.shared.uniform((h // side, w // side), at="turns").tolist()
    delta = torch.zeros_like(x)
    for i, j in product(range(h // side), range(w // side)):
        tile = delta[..., edge + i * side :, edge + j * side :][..., :side, :side]
        patch = turned_bump(side, turns[i][j], x)[: tile.shape[2], : tile.shape[3]]
        tile += patch * signs(rng.uniform((c, 1, 1), at=("sign", i, j)))
    return threat.clamp(x + threat.eps * threat.normalise(delta))


def l2_patch(
    x: Tensor, x_adv: Tensor, threat: ThreatModel, rng: Rng, query: int, side: int
) -> Tensor:
    """Move what two squares hold of the perturbation, and what is left of eps, into the first."""
    c = x.shape[1]
    draws = rng.shared.uniform((5,), at=("patch", query)).tolist()
    to, origin = window(draws[:2], side, x), window(draws[2:4], side, x)
    delta = x_adv - x
    unused = (threat.eps**2 - per_point(threat.size(delta), x) ** 2).clamp(min=0)
    old = delta[to].clone()
    delta[to] = 0
    budget = (energy(old) + energy(delta[origin]) + unused / c).sqrt()
    patch = turned_bump(side, draws[4], x) * signs(rng.uniform((c, 1, 1), at=("patch", query)))
    new = patch + old / (energy(old).sqrt() + TINY)
    delta[origin] = 0
    delta[to] = new * budget / (energy(new).sqrt() + TINY)
    return threat.clamp(x + threat.eps * threat.normalise(delta))


def energy(patch: Tensor) -> Tensor:
    """Give the squared l2 size in each channel: (N, C, 1, 1)."""
    return patch.square().sum((2, 3), keepdim=True)


def patch_side(query: int, p_init: float, x: Tensor, threat: ThreatModel) -> int:
    """Give the side in pixels: in linf at least 1; in l2 at least 3, and odd."""
    h, w = x.shape[2:]
    side = round(math.sqrt(share(query, p_init) * h * w))
    side = max(side, 1) if threat.norm == "linf" else max(side, 3) // 2 * 2 + 1
    return min(side, h, w)


class Square(Attack):
    """Andriushchenko et al. 2020 (arXiv 1912.00049), on the margin, as in AutoAttack's protocol.

    The schedule is not scaled to the number of queries, and all points share a patch's place.
    """

    name = "square"
    queries: int = Field(default=5000, ge=1, description="patches tried on each point")
    p_init: float = Field(default=0.8, gt=0, le=1, description="share of the image, at first")

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
        start, patch = PATCHES[threat.norm]
        rows, proposed = search.rows, start(x, threat, rng)
        x_adv, best = proposed, torch.full_like(x[:, 0, 0, 0], -torch.inf)
        for query in range(self.queries + 1):
            logits = victim(proposed, rows)
            loss = self._objective(search, logits, rows)
            x_adv = proposed.where(per_point(loss > best, x), x_adv)
            best = torch.maximum(loss, best)
            left = search.settle(proposed, logits, rows)
            if len(left) < len(rows):
                x, x_adv, best, rows, rng = x[left], x_adv[left], best[left], rows[left], rng[left]
            if not len(rows):
                break
            side = patch_side(query, self.p_init, x, threat)
            proposed = patch(x, x_adv, threat, rng, query, side)
        search.x_adv[rows] = x_adv
        return search.x_adv

    @staticmethod
    def _objective(search: Search, logits: Tensor, rows: Tensor) -> Tensor:
        if search.target is None:
            return margin(logits, search.label[rows])
        return -margin(logits, search.target[rows])


PATCHES = {"linf": (linf_start, linf_patch), "l2": (l2_start, l2_patch)}
