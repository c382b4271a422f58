"""What an adversary may do: a norm, a size and the box of valid pixels. All geometry is here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Literal, cast, get_args

from robustkit.errors import BadValueError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

    from robustkit.interfaces import Rng

    Move = Callable[[Tensor, Tensor, Tensor], Tensor]
    """How far each pixel goes (N, D), of its slope and its room (N, D) and the size (N, 1)."""

Norm = Literal["linf", "l2", "l1", "none"]
NORMS: tuple[str, ...] = get_args(Norm)
FAR = 1e12
"""Stands for a wall at infinity, and for a step that runs into every wall."""


def parse_eps(value: str | float) -> float:
    """Read a perturbation size: a number, a fraction such as "8/255", or "inf".

    Raises BadValueError for what is not a number of at least 0.
    """
    try:
        eps = float(Fraction(value)) if isinstance(value, str) and "/" in value else float(value)
    except (ValueError, ZeroDivisionError):
        eps = math.nan
    if not eps >= 0:
        raise BadValueError(f"eps '{value}' is not a size; write a number such as 0.3 or 8/255")
    return eps


def format_eps(eps: float) -> str:
    """Write a size the way people say it: "8/255" where it is one, else up to 6 digits."""
    n = eps * 255
    if 0 < n < 255 and abs(n - round(n)) < 1e-6 and not (eps * 100).is_integer():
        return f"{round(n)}/255"
    return f"{eps:.6g}"


def parse_norm(value: str) -> Norm:
    """Read a norm's name; "Linf", "L2" and "inf" are understood. Raises UnknownNameError."""
    name = {"inf": "linf", "2": "l2", "1": "l1"}.get(value.lower(), value.lower())
    if name not in NORMS:
        raise UnknownNameError("norm", value, NORMS)
    return cast(Norm, name)


@dataclass(frozen=True)
class ThreatModel:
    """The perturbations that count: `size(x_adv - x) <= eps` inside the box [low, high].

    norm "none" (corruptions, spatial changes) drops the ball and keeps the box; eps = inf asks for
    the smallest perturbation; low = -inf with high = inf turns the box off. Sizes are those of
    images in [0, 1]. With `bits` only the images count that a file of so many bits a channel holds:
    pixels k / (2^bits - 1). With a `target`, only those count that the model takes for it: a class
    by its name, "random" or "least-likely".
    """

    norm: Norm
    eps: float
    low: float = 0.0
    high: float = 1.0
    bits: int | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", parse_norm(self.norm))
        object.__setattr__(self, "eps", parse_eps(self.eps))
        if not self.low < self.high:
            raise BadValueError(f"box [{self.low}, {self.high}] is empty; low must be below high")
        if self.bits is not None and not 1 <= self.bits <= 16:
            raise BadValueError(f"{self.bits} bits are not those of an image; give 1 to 16, as 8")
        if self.bits is not None and (self.low, self.high) != (0, 1):
            raise BadValueError(
                f"{self.bits}-bit images hold pixels in [0, 1] only; the box is"
                f" [{self.low:g}, {self.high:g}]"
            )

    def __str__(self) -> str:
        ball = self.norm if self.norm == "none" else f"{self.norm} {format_eps(self.eps)}"
        return ball + self.terms

    @property
    def terms(self) -> str:
        """What else holds, in words that follow others: ", no box", ", 8 bits", or nothing."""
        closed = math.isfinite(self.low) or math.isfinite(self.high)
        found = f", box [{self.low:g}, {self.high:g}]" if closed else ", no box"
        found = "" if (self.low, self.high) == (0, 1) else found
        found += "" if self.bits is None else f", {self.bits} bits"
        return found if self.target is None else f"{found}, target {self.target}"

    @property
    def tolerance(self) -> float:
        """The rounding beyond eps that is mended by a projection rather than called a breach."""
        return 1e-7 if math.isinf(self.eps) else 1e-5 * self.eps + 1e-7

    def size(self, delta: Tensor) -> Tensor:
        """Measure perturbations (N, ...) in this norm: (N,). With norm "none" it is linf."""
        flat = delta.flatten(1)
        if self.norm == "l2":
            return flat.norm(dim=1)
        return flat.abs().sum(1) if self.norm == "l1" else flat.abs().amax(1)

    def dual_size(self, grad: Tensor) -> Tensor:
        """Measure gradients (N, ...) in the dual norm: (N,), the most a unit step can gain."""
        flat = grad.flatten(1)
        if self.norm == "l2":
            return flat.norm(dim=1)
        return flat.abs().amax(1) if self.norm == "l1" else flat.abs().sum(1)

    def steepest(self, grad: Tensor) -> Tensor:
        """Give the direction of unit size along which a linear function with `grad` grows most."""
        import torch

        if self.norm == "l2":
            return self.normalise(grad)
        if self.norm == "l1":
            top = grad.flatten(1).abs().argmax(1, keepdim=True)
            one_hot = torch.zeros_like(grad.flatten(1)).scatter_(1, top, 1.0)
            return (one_hot * grad.flatten(1).sign()).view_as(grad)
        return grad.sign()

    def normalise(self, delta: Tensor) -> Tensor:
        """Scale perturbations (N, ...) to size 1; zero stays zero."""
        return delta / per_point(self.size(delta) + 1e-12, delta)

    def clamp(self, x: Tensor) -> Tensor:
        """Bring images into the box."""
        return x if math.isinf(self.low) and math.isinf(self.high) else x.clamp(self.low, self.high)

    def project(self, x_adv: Tensor, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Bring `x_adv` into the ball around `x` and into the box; `x` lies in the box.

        linf and l1 give the nearest such point; l2 scales to the ball, then clamps, as
        AutoAttack's reference does (a clamp only shortens). `eps` (N,) stands for this threat's
        own, a size a point.
        """
        import torch

        if self.norm == "none" or (eps is None and math.isinf(self.eps)):
            return self.clamp(x_adv)
        size = self.eps if eps is None else eps
        if self.norm == "linf":
            size = size if eps is None else per_point(eps, x)
            return self.clamp(torch.minimum(torch.maximum(x_adv, x - size), x + size))
        delta = x_adv - x
        if self.norm == "l2":
            scale = (size / (self.size(delta) + 1e-12)).clamp(max=1.0)
            return self.clamp(x + delta * per_point(scale, delta))
        return x + self._project_l1(delta, x, size)

    def farthest(self, grad: Tensor, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Give the point of ball and box where a linear function with `grad` is largest.

        `eps` (N,) stands for this threat's own, a size a point; `x` lies in the box. Without a box
        it is a step of that size along `steepest`. In the box, l1 moves pixel after pixel, those of
        largest gradient first, each up to the wall.
        """
        if self.norm == "l1":
            return self._moved(x, grad, eps, _one_by_one)
        if self.norm == "l2":
            return self.along(grad, x, eps)
        size = self.eps if eps is None else per_point(eps, x)
        return self.clamp(x + size * grad.sign())

    def along(self, direction: Tensor, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Give the point that lies in a direction, in the box, and has size eps from `x`.

        The step along `direction` grows until what the box leaves of it has the size; where all
        pixels meet the wall before, that is the point.
        """
        power = {"l1": 1.0, "l2": 2.0}.get(self.norm, math.inf)
        return self._moved(x, direction, eps, partial(_scaled, power))

    def _moved(self, x: Tensor, direction: Tensor, eps: Tensor | None, move: Move) -> Tensor:
        import torch

        flat = direction.flatten(1)
        # Where slopes are as small as 1e-30, their squares would vanish.
        flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
        size = flat.new_full((len(flat),), self.eps) if eps is None else eps.to(flat)
        room = torch.where(flat > 0, self.high - x.flatten(1), x.flatten(1) - self.low)
        room = room.clamp(0, FAR).masked_fill(flat == 0, 0)
        step = flat.sign() * move(flat.abs(), room, size.unsqueeze(1))
        return self.clamp(x + step.view_as(x))

    def _project_l1(self, delta: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
        """Find the nearest point of ball and box: soft thresholding, its threshold by bisection."""
        low, high = (self.low - x).flatten(1), (self.high - x).flatten(1)
        flat = delta.flatten(1)

        def shrink(threshold: Tensor) -> Tensor:
            soft = flat.sign() * (flat.abs() - threshold.unsqueeze(1)).clamp(min=0)
            return soft.maximum(low).minimum(high)

        under = flat.new_zeros(len(flat))
        over = flat.abs().amax(1)
        outside = shrink(under).abs().sum(1) > eps
        for _ in range(40):
            middle = (under + over) / 2
            too_large = shrink(middle).abs().sum(1) > eps
            under, over = middle.where(too_large, under), over.where(too_large, middle)
        return shrink(over.where(outside, over.new_zeros(()))).view_as(delta)

    def quantise(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Bring `x_adv` to pixels k / (2^bits - 1), where those of `x` are, and into the box.

        It comes to lie no farther from `x` than eps, or than it lay before. linf gives the nearest
        such point; in l2 and l1, where rounding leads out, pixels that it moved away from `x` are
        moved back instead, those first that cost the least distance for what they shorten.
        """
        levels = 2 ** (self.bits or 8) - 1
        origin = (x.double() * levels).round()
        wanted = self.clamp(x_adv).double() * levels - origin
        steps = wanted.round()
        if self.norm != "none" and not math.isinf(self.eps):
            most = self.size(wanted).clamp(min=self.eps * levels) * (1 + 1e-9)
            if self.norm == "linf":
                room = per_point(most.floor(), steps)
                steps = steps.maximum(-room).minimum(room)
            else:
                power = 2 if self.norm == "l2" else 1
                flat = _shortened(steps.flatten(1), wanted.flatten(1), most, power)
                steps = flat.view_as(steps)
        # By a tensor, for a division by a number is a product with its rounded inverse on CUDA.
        return (origin + steps).to(x) / x.new_tensor(levels)

    def random_start(self, x: Tensor, rng: Rng, at: object = 0) -> Tensor:
        """Draw a start for a search: uniform in the linf ball, else on the sphere; then the box."""
        if self.norm in ("linf", "none"):
            start = x + self.eps * (2 * rng.uniform(x.shape[1:], at=at) - 1)
        else:
            start = x + self.eps * self.normalise(rng.normal(x.shape[1:], at=at))
        return self.project(start, x)


def per_point(values: Tensor, like: Tensor) -> Tensor:
    """View values (N,) so that they broadcast over tensors shaped as `like` (N, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _scaled(power: float, slope: Tensor, room: Tensor, size: Tensor) -> Tensor:
    """Give min(scale * slope, room) of size (N, 1) in the norm of this power, or all of the room.

    The pixels at the wall only become more as the scale grows, so that it is found in finitely many
    steps from below.
    """
    import torch

    at_wall = room <= 0
    while True:
        rate = slope.masked_fill(at_wall, 0).norm(power, dim=1, keepdim=True)
        scale = size / rate
        if power < math.inf:
            taken = room.masked_fill(~at_wall, 0).pow(power).sum(1, keepdim=True)
            scale = (size**power - taken).clamp(min=0) ** (1 / power) / rate
        scaled = scale.nan_to_num(posinf=FAR).clamp(max=FAR) * slope
        reached = at_wall | (scaled >= room)
        if torch.equal(reached, at_wall):
            return room.minimum(scaled)
        at_wall = reached


def _one_by_one(slope: Tensor, room: Tensor, size: Tensor) -> Tensor:
    """Give to each pixel up to its room, the steepest first, until `size` (N, 1) is spent."""
    order = slope.argsort(dim=1, descending=True, stable=True)
    wanted = room.gather(1, order).double()
    before = wanted.cumsum(1) - wanted
    step = wanted.minimum((size - before).clamp(min=0)).to(room)
    return step.new_zeros(step.shape).scatter_(1, order, step)


def _shortened(steps: Tensor, wanted: Tensor, most: Tensor, power: int) -> Tensor:
    """Take whole steps (N, D) back towards 0 until the norm of this power is at most `most` (N,).

    Only those are taken back that are longer than `wanted`, by one each: with all of them no step
    is longer.
    """
    length = steps.abs()
    longer = length - wanted.abs()
    gain = (length**power - (length - 1) ** power).masked_fill(longer <= 0, 0)
    cost = ((1 - 2 * longer) / gain).masked_fill(longer <= 0, math.inf)
    order = cost.argsort(dim=1, stable=True)
    gained = gain.gather(1, order)
    excess = (length**power).sum(1, keepdim=True) - most.unsqueeze(1) ** power
    short = (gained.cumsum(1) - gained < excess) & (gained > 0)
    back = short.new_zeros(short.shape).scatter_(1, order, short)
    return steps - steps.sign() * back
