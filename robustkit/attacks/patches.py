"""What the Square attack tries: where a search starts, and the patch of each query."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import ClassVar, Self

import torch
from torch import Tensor

from robustkit.interfaces import Rng
from robustkit.threat import ThreatModel, per_point

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries, of any number, after which the patch's share of the image is halved."""

TINY = 1e-12


def share(query: int, p_init: float) -> float:
    """Give the share of the image that the patch of a query (from 0) covers, before rounding."""
    return p_init / 2 ** sum(query > after for after in HALVED_AFTER)


def patch_side(query: int, p_init: float, x: Tensor, threat: ThreatModel) -> int:
    """Give the side in pixels: in linf at least 1; in l2 and l1 at least 3, and odd."""
    h, w = x.shape[2:]
    side = round(math.sqrt(share(query, p_init) * h * w))
    side = max(side, 1) if threat.norm == "linf" else max(side, 3) // 2 * 2 + 1
    return min(side, h, w)


def signs(draws: Tensor) -> Tensor:
    """Turn uniform draws into -1 or 1."""
    return (draws >= 0.5).to(draws) * 2 - 1


@dataclass(frozen=True)
class Windows:
    """A square of pixels for each query: its corner (Q, 2), and the pixels of each axis in it."""

    corner: Tensor
    down: Tensor
    """(Q, H) of bool; so is `across` (Q, W)."""
    across: Tensor

    @classmethod
    def drawn(cls, draws: Tensor, sides: Tensor, x: Tensor) -> Self:
        """Place squares by uniform draws (Q, 2); the last offset is never reached."""
        size = torch.tensor(x.shape[2:], device=x.device)
        corner = (draws.double() * (size - sides.unsqueeze(1))).long()
        first, last = corner.unsqueeze(2), (corner + sides.unsqueeze(1)).unsqueeze(2)
        lines = [torch.arange(n, device=x.device) for n in x.shape[2:]]
        down, across = (
            (first[:, axis] <= line) & (line < last[:, axis]) for axis, line in enumerate(lines)
        )
        return cls(corner, down, across)

    def mask(self, turns: Tensor) -> Tensor:
        """Say which pixels (..., 1, H, W) lie in the squares of some queries (...)."""
        return (self.down[turns].unsqueeze(-1) & self.across[turns].unsqueeze(-2)).unsqueeze(-3)


class Patches(ABC):
    """The patches of a search around x (N, C, H, W): a list, of which each point tries one a query.

    Places, sizes and, in linf, signs are the same for all points, as in the reference.
    """

    def __init__(
        self, x: Tensor, threat: ThreatModel, rng: Rng, queries: int, p_init: float
    ) -> None:
        self.threat, self.rng = threat, rng
        sides = [patch_side(query, p_init, x, threat) for query in range(queries)]
        self._prepare(x, torch.tensor(sides, device=x.device))

    @abstractmethod
    def _prepare(self, x: Tensor, sides: Tensor) -> None:
        """Draw the list; `sides` (Q,) are in pixels."""

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """Give where the search of each point of the call starts."""

    @abstractmethod
    def propose(self, x: Tensor, x_adv: Tensor, turns: Tensor, rows: Tensor) -> Tensor:
        """Change each of `x_adv` (M, C, H, W) in K ways: the patches `turns` (M, K), one each.

        `rows` (M,) are the points' places in the call. Gives (M, K, C, H, W).
        """


class Squares(Patches):
    """linf: in each channel a square goes to one end of the ball."""

    def _prepare(self, x: Tensor, sides: Tensor) -> None:
        draws = self.rng.shared.uniform((len(sides), 2 + x.shape[1]), at="patches")
        self.windows = Windows.drawn(draws[:, :2], sides, x)
        self.ends = 2 * self.threat.eps * signs(draws[:, 2:]).unsqueeze(-1).unsqueeze(-1)

    def start(self, x: Tensor) -> Tensor:
        """Give vertical stripes of plus and minus eps, a sign for each point, channel, column."""
        _, c, _, w = x.shape
        stripes = signs(self.rng.uniform((c, 1, w), at="stripes"))
        return self.threat.project(x + self.threat.eps * stripes, x)

    def propose(self, x: Tensor, x_adv: Tensor, turns: Tensor, rows: Tensor) -> Tensor:
        moved = x_adv.unsqueeze(1) + self.ends[turns] * self.windows.mask(turns)
        return self.threat.project(moved, x.unsqueeze(1))


class Bumps(Patches):
    """l2 and l1: what two squares hold of the perturbation is gathered in one, shaped as a bump."""

    p: ClassVar[int]

    def _prepare(self, x: Tensor, sides: Tensor) -> None:
        queries, c = len(sides), x.shape[1]
        draws = self.rng.shared.uniform((queries, 5), at="patches")
        self.to = Windows.drawn(draws[:, :2], sides, x)
        self.origin = Windows.drawn(draws[:, 2:4], sides, x)
        # A bit a channel: numbers for all queries would take as much memory as hundreds of images.
        self.bits = self.rng.choice(2**c, (queries,), at="signs")
        self.channels = torch.arange(c, device=x.device)
        widest = int(sides.max())
        forms = sides.unique()
        self.forms = x.new_zeros((2 * len(forms), widest, widest))
        for place, side in enumerate(forms.tolist()):
            upright = bump(side, self.p)
            self.forms[2 * place, :side, :side] = upright
            self.forms[2 * place + 1, :side, :side] = upright.T
        self.form = 2 * torch.searchsorted(forms, sides) + (draws[:, 4] > 0.5)

    def start(self, x: Tensor) -> Tensor:
        """Give some five by five bumps."""
        return self._bounded(x, grid(x, self.rng, self.p))

    def propose(self, x: Tensor, x_adv: Tensor, turns: Tensor, rows: Tensor) -> Tensor:
        k, flat = turns.shape[1], turns.flatten()
        x, delta = x.repeat_interleave(k, 0), (x_adv - x).repeat_interleave(k, 0)
        sign = self.bits[rows.repeat_interleave(k), flat].unsqueeze(1) >> self.channels & 1
        return self._bounded(x, self._gathered(delta, flat, sign * 2 - 1)).unflatten(0, (-1, k))

    @abstractmethod
    def _bounded(self, x: Tensor, delta: Tensor) -> Tensor:
        """Give the points of ball and box that perturbations (R, C, H, W) of x lead to."""

    def _gathered(self, delta: Tensor, turns: Tensor, sign: Tensor) -> Tensor:
        """Move what two squares hold, and what is left of eps, into the first, as turns (R,) say.

        Sizes are of the power p; sign (R, C) is that of the bump in each channel.
        """
        p, eps, c = self.p, self.threat.eps, delta.shape[1]
        to, origin = self.to.mask(turns), self.origin.mask(turns)
        unused = (eps**p - per_point(self.threat.size(delta), delta) ** p).clamp(min=0)
        old = delta * to
        held = mass(old, p)
        due = (held + mass(delta * (origin & ~to), p) + unused / c) ** (1 / p)
        # The reference's l1 puts more in than is due, and leaves it to the projection.
        due = due * c if p == 1 else due
        new = self._placed(turns) * to * sign[..., None, None] + old / (held ** (1 / p) + TINY)
        new = new * due / (mass(new, p) ** (1 / p) + TINY)
        return delta.masked_fill(to | origin, 0) + new

    def _placed(self, turns: Tensor) -> Tensor:
        """Give the bumps (R, 1, H, W) at their places; what lies outside their squares is void."""
        h, w = self.to.down.shape[1], self.to.across.shape[1]
        top, left = self.to.corner[turns].unsqueeze(2).unbind(1)
        last = self.forms.shape[1] - 1
        down = (torch.arange(h, device=turns.device) - top).clamp(0, last)
        across = (torch.arange(w, device=turns.device) - left).clamp(0, last)
        form = self.form[turns].view(-1, 1, 1)
        return self.forms[form, down.unsqueeze(2), across.unsqueeze(1)].unsqueeze(1)


class Bumps2(Bumps):
    """l2: the perturbation is scaled to eps."""

    p = 2

    def _bounded(self, x: Tensor, delta: Tensor) -> Tensor:
        return self.threat.clamp(x + self.threat.eps * self.threat.normalise(delta))


class Bumps1(Bumps):
    """l1, Croce and Hein 2021 (arXiv 2103.01208): the perturbation is projected, never grown."""

    p = 1

    def _bounded(self, x: Tensor, delta: Tensor) -> Tensor:
        # So much within that rounding does not leave the ball.
        within = replace(self.threat, eps=self.threat.eps * (1 - 1e-6))
        return within.project(x + delta, x)


def pyramid(height: int, width: int, p: int) -> Tensor:
    """Give rings around the middle, ring k of height 1/k^q + 1/(k+1)^q + ..., of size 1 in lp.

    q is 2 in l2 and 4 in l1.
    """
    rows = (torch.arange(height) - height // 2).abs().unsqueeze(1)
    columns = (torch.arange(width) - width // 2).abs()
    rings = torch.arange(max(height, width) // 2 + 1, 0, -1)
    heights = (1 / rings ** (4 // p)).cumsum(0).flip(0)[torch.maximum(rows, columns)]
    return heights / heights.norm(p).clamp(min=TINY)


@cache
def bump(side: int, p: int) -> Tensor:
    """Give the patch (side, side) of size 1 in lp: a pyramid above, and its negative below."""
    patch = torch.cat((pyramid(side // 2, side, p), -pyramid(side - side // 2, side, p)))
    return patch / patch.norm(p)


def grid(x: Tensor, rng: Rng, p: int) -> Tensor:
    """Give some five by five bumps, a sign for each point, channel and bump."""
    _, c, h, w = x.shape
    side = max(h // 5, 1)
    edge = max(h - 5 * side, 0) // 2
    turns = rng.shared.uniform((h // side, w // side), at="turns").tolist()
    delta = torch.zeros_like(x)
    for i, j in product(range(h // side), range(w // side)):
        tile = delta[..., edge + i * side :, edge + j * side :][..., :side, :side]
        patch = (bump(side, p).T if turns[i][j] > 0.5 else bump(side, p)).to(x)
        tile += patch[: tile.shape[2], : tile.shape[3]] * signs(
            rng.uniform((c, 1, 1), at=("sign", i, j))
        )
    return delta


def mass(patch: Tensor, p: int) -> Tensor:
    """Give the p-th power of the lp size in each channel: (N, C, 1, 1)."""
    return patch.abs().pow(p).sum((2, 3), keepdim=True)


PATCHES: dict[str, type[Patches]] = {"linf": Squares, "l2": Bumps2, "l1": Bumps1}
