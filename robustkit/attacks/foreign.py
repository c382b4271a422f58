"""Attacks of other libraries: asked for one point at a time, watched at each call of the model."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robustkit.attacks.search import Search
from robustkit.errors import BadValueError
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.threat import ThreatModel, per_point

SURE = 1e-5
"""The lead, relative to the largest logit, that a wrong class must have to be sure of it."""
ROOM = 1.0
"""How far beyond the pixels a library may look where there is no box and eps is inf."""


class SearchEndedError(BaseException):
    """Raised inside a library's own loop, past its handlers: enough is found, or time is up."""


class Asked(nn.Module):
    """A victim as a library's model, for one point x (1, C, H, W) of label (1,), at a row (1,).

    It keeps the smallest image it was shown that misleads the model, beyond rounding, inside ball
    and box, and ends the search (SearchEndedError) once the victim is done with the point, or at
    `until`.
    """

    def __init__(
        self,
        victim: Victim,
        x: Tensor,
        label: Tensor,
        row: Tensor,
        threat: ThreatModel,
        target: Tensor | None = None,
        seconds: float = math.inf,
    ) -> None:
        super().__init__()
        self.victim, self.x, self.label, self.row = victim, x, label, row
        self.threat, self.target = threat, target
        self.until = time.monotonic() + seconds
        self.best, self.size = x.clone(), math.inf
        self.logits: Tensor | None = None
        """Of `best`; None where nothing misleads the model so far."""
        self.classes, self.late = 0, False
        self.eval()

    @property
    def bounds(self) -> tuple[float, float]:
        """The box, or without one a range of pixels that holds the ball."""
        if math.isfinite(self.threat.low) and math.isfinite(self.threat.high):
            return self.threat.low, self.threat.high
        eps = self.threat.eps
        room = eps if math.isfinite(eps) and self.threat.norm != "none" else ROOM
        return float(self.x.min()) - room, float(self.x.max()) + room

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of images (M, C, H, W) near the point."""
        x = x.to(self.x)
        logits = self.victim(x, self.row.expand(len(x)))
        self.classes = logits.shape[1]
        with torch.no_grad():
            self._look(x.detach(), logits.detach())
        return logits

    def _look(self, x: Tensor, logits: Tensor) -> None:
        threat, slack = self.threat, self.threat.tolerance
        sizes = threat.size(x - self.x)
        fine = self._misled(logits) & (threat.clamp(x) - x).abs().flatten(1).le(slack).all(1)
        if threat.norm != "none":
            fine &= sizes <= threat.eps + slack
        sizes = sizes.where(fine, math.inf)
        nearest = int(sizes.argmin())
        if (size := float(sizes[nearest])) < self.size:
            at = slice(nearest, nearest + 1)
            self.best, self.size, self.logits = x[at].clone(), size, logits[at].clone()
        known = F.one_hot(self.label, logits.shape[1]).to(logits)  # nothing that misleads it
        if self.logits is not None and math.isfinite(threat.eps):
            known = self.logits
        if bool(self.victim.done(known, self.label)):
            raise SearchEndedError
        if time.monotonic() > self.until:
            self.late = True
            raise SearchEndedError

    def _misled(self, logits: Tensor) -> Tensor:
        wanted = (self.label if self.target is None else self.target).expand(len(logits), 1)
        lead = logits.gather(1, wanted).squeeze(1) - logits.scatter(1, wanted, -torch.inf).amax(1)
        return (-lead if self.target is None else lead) > SURE * logits.abs().amax(1)


class Foreign(Attack):
    """An attack of another library.

    It works on one point at a time, under random numbers of that point, so that what it finds does
    not depend on the batch. Whatever it shows the model counts as found: the smallest image inside
    ball and box that misleads the model is proposed. Where there is none it is the original or,
    of an attack that takes an eps itself, what the library came to, inside the ball.
    """

    targeted: ClassVar[bool] = False
    """Whether it can be asked for a class."""
    seconds: float = Field(
        default=300.0, gt=0, description="most time for a point; it then keeps the best so far"
    )

    def find(self, asked: Asked) -> Tensor:
        """Let the library attack `asked.x` (1, C, H, W); give what it came to."""
        raise NotImplementedError

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        if target is not None and not self.targeted:
            raise BadValueError(f"attack '{self.name}' takes no target; 'apgd-t' does")
        label = Search(self, victim, x, y, threat, target).label
        seeds = rng.choice(2**31, at="search").tolist()
        rows = torch.arange(len(x), device=x.device)
        x_adv, late = x.clone(), torch.zeros_like(rows, dtype=torch.bool)
        for row in rows.tolist():
            at = slice(row, row + 1)
            wanted = None if target is None else target[at]
            asked = Asked(victim, x[at], label[at], rows[at], threat, wanted, self.seconds)
            with seeded(seeds[row], x.device), silent():
                x_adv[at] = self._proposal(asked)
            late[row] = asked.late
        victim.late(rows[late])
        return x_adv

    def _proposal(self, asked: Asked) -> Tensor:
        try:
            asked(asked.x)
            if asked.logits is not None or asked.threat.eps == 0:
                return asked.best
            found = self.find(asked).to(asked.x)
            asked(found)
        except SearchEndedError:
            return asked.best
        if asked.logits is not None or self.minimal:
            return asked.best
        numbers = per_point(found.isfinite().flatten(1).all(1), found)
        return asked.threat.project(found.where(numbers, asked.x), asked.x)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random numbers of Python, numpy and torch; later they go on as before."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextmanager
def silent() -> Iterator[None]:
    """Keep a library's warnings from the terminal."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
