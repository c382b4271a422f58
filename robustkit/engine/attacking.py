"""One part of an attack on one block of points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from robustkit.engine import checks
from robustkit.engine.blocks import Step
from robustkit.engine.rng import PointRng
from robustkit.engine.targets import targets_of
from robustkit.engine.verdict import Judge, Verdicts, seeded
from robustkit.engine.victim import CountingVictim, blamed, quantised
from robustkit.errors import BadValueError, BrokenPluginError
from robustkit.interfaces import Attack
from robustkit.threat import ThreatModel

if TYPE_CHECKING:
    from robustkit.engine.workers import Workers

SHOWN = 16
"""Broken points whose images a report shows, and robust ones that came closest."""


@dataclass(frozen=True)
class Block:
    """Points on the device: ids (N,), x (N, C, H, W) in [0, 1], labels y (N,).

    `target` (N,) are the classes that they are to be taken for, where these are asked for.
    """

    ids: Tensor
    x: Tensor
    y: Tensor
    target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor | slice) -> Block:
        target = None if self.target is None else self.target[rows]
        return Block(self.ids[rows], self.x[rows], self.y[rows], target)

    def to(self, device: torch.device | str) -> Block:
        """Give the points on another device."""
        target = None if self.target is None else self.target.to(device)
        return Block(self.ids.to(device), self.x.to(device), self.y.to(device), target)


@dataclass(frozen=True)
class Found:
    """What became of some points (N,), and the passes spent on each; all on the processor."""

    verdicts: Verdicts
    forwards: Tensor
    backwards: Tensor
    spread: bool
    stopped: int
    """Points whose search ran out of time."""


@dataclass
class Attacker:
    """Runs attacks on blocks: always from the original images, `batch_size` points at a time.

    `batch_size` is halved where memory runs out; verdicts do not depend on it.
    """

    model: nn.Module
    judge: Judge
    threat: ThreatModel
    seed: int
    batch_size: int
    note: Callable[[str], None]
    classes: Sequence[str] = ()
    eot: int = 1
    """Passes of a randomised model whose mean an attack sees as one."""
    crafting: bool = False
    """Whether searches go on where the model is fooled already, and steps keep all proposals."""
    workers: Workers | None = None
    """Other processes that do the work, if there are any."""

    def step(
        self, part: Attack, block: Block, rows: Tensor, tick: Callable[[int, int], None]
    ) -> Step:
        """Attack the points `rows` (M,) of a block and judge them.

        `tick` is told after each batch how many of them are done and how many broken. Raises
        BrokenPluginError, naming the attack, where it fails or gives no images, and where a set
        is made of proposals that leave the threat.
        """
        began, done, broken = time.perf_counter(), 0, 0
        found: list[Found] = []
        points = self._aimed(block)[rows]
        dealt = self.workers.attack(self, part, points) if self.workers else None
        for some in dealt or self.attack(part, points):
            found.append(some)
            done += len(some.verdicts.broken)
            broken += int(some.verdicts.broken.sum())
            tick(done, broken)
        seconds = time.perf_counter() - began
        return _step(rows.cpu(), points.y.cpu(), found, seconds, whole=self.crafting)

    def attack(self, part: Attack, points: Block) -> Iterator[Found]:
        """Attack points and judge them, batch by batch, in their order: raises as `step` does."""
        done = 0
        while done < len(points):
            some = points[done : done + self.batch_size]
            try:
                proposal, victim = self._propose(part, some)
            except torch.OutOfMemoryError:
                self._halve(part)
                continue
            verdicts = self.judge.decide(proposal, some.x, some.y, self.threat, some.target)
            if self.crafting and bool(verdicts.rejected.any()):
                seen = checks.breach(verdicts.largest, str(self.threat))
                raise BrokenPluginError(
                    f"attack '{part.name}' is broken: {int(verdicts.rejected.sum())} of"
                    f" {len(some)} proposals are {seen}"
                )
            done += len(some)
            yield Found(
                verdicts.cpu(),
                victim.forwards.cpu(),
                victim.backwards.cpu(),
                victim.spread,
                int(victim.stopped.sum()),
            )

    def _aimed(self, block: Block) -> Block:
        if self.threat.target is None:
            return block
        target, points = self.threat.target, (block.ids, block.x, block.y)
        return replace(block, target=targets_of(target, self.classes, self.judge, *points))

    def _propose(self, part: Attack, points: Block) -> tuple[Tensor, CountingVictim]:
        x, y, ids, target = points.x, points.y, points.ids, points.target
        drop = not (self.crafting or math.isinf(self.threat.eps))
        view = None if self.threat.bits is None else quantised(self.threat, x)
        # What a randomised model answers depends on the call.
        whole = self.judge.rounds > 1
        victim = CountingVictim(
            self.model, len(points), x.device, drop=drop, view=view, eot=self.eot, whole=whole
        )
        rng = PointRng(self.seed, part.name, ids)
        noise = seeded(x.device, self.seed, part.name, ids.tolist())
        with blamed(part), torch.enable_grad(), noise:
            to = None if target is None else target.clone()
            proposal = part.perturb(victim, x.clone(), y.clone(), self.threat, rng, to)
        if not isinstance(proposal, Tensor) or proposal.shape != x.shape:
            got = tuple(getattr(proposal, "shape", ())) or type(proposal).__name__
            raise BrokenPluginError(
                f"attack '{part.name}' proposed {got} for images of shape {tuple(x.shape)}"
            )
        return proposal.detach().to(x), victim

    def _halve(self, part: Attack) -> None:
        if self.batch_size == 1:
            raise BadValueError(
                f"attack '{part.name}' needs more memory than the device has, for a single image"
            )
        torch.cuda.empty_cache()
        self.shrink(self.batch_size // 2)

    def shrink(self, batch_size: int) -> None:
        """Go on with smaller batches, if these are smaller."""
        if batch_size < self.batch_size:
            self.batch_size = batch_size
            self.note(f"memory ran out; going on with batches of {batch_size}")


def _step(rows: Tensor, y: Tensor, found: Sequence[Found], seconds: float, *, whole: bool) -> Step:
    """Put the batches of a step together; there is at least one."""
    verdicts = [some.verdicts for some in found]
    broken = torch.cat([v.broken for v in verdicts])
    margins = torch.cat([v.margins for v in verdicts])
    kept = torch.arange(len(rows))
    if not whole:
        some = kept[broken][spread(y[broken].tolist(), SHOWN)]
        left = kept[~broken & margins.isfinite()]
        kept = torch.cat((some, left[margins[left].argsort(stable=True)[:SHOWN]]))
    x_adv = torch.cat([v.x_adv for v in verdicts])[kept]
    largest = [v.largest for v in verdicts if not math.isnan(v.largest)]
    return Step(
        rows=rows.numpy(),
        predictions=torch.cat([v.predictions for v in verdicts]).numpy(),
        broken=broken.numpy(),
        rejected=torch.cat([v.rejected for v in verdicts]).numpy(),
        sizes=torch.cat([v.sizes for v in verdicts]).numpy(),
        margins=margins.numpy(),
        forwards=torch.cat([some.forwards for some in found]).numpy().astype(np.float64),
        backwards=torch.cat([some.backwards for some in found]).numpy().astype(np.float64),
        shown=rows[kept].numpy(),
        x_adv=x_adv.numpy(),
        seconds=seconds,
        spread=any(some.spread for some in found),
        stopped=sum(some.stopped for some in found),
        largest=max(largest, default=math.nan),
    )


def spread(labels: list[int], most: int) -> list[int]:
    """Choose at most `most` places, in turn from each label, the first ones of each: sorted."""
    turn: dict[int, int] = {}
    keyed = []
    for place, label in enumerate(labels):
        turn[label] = turn.get(label, 0) + 1
        keyed.append((turn[label], place))
    return sorted(place for _, place in sorted(keyed)[:most])
