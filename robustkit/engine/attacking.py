"""One part of an attack on one block of points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustkit.engine import checks
from robustkit.engine.blocks import Step
from robustkit.engine.rng import PointRng
from robustkit.engine.verdict import Judge, Verdicts, seeded
from robustkit.engine.victim import CountingVictim, blamed
from robustkit.errors import BadValueError, BrokenPluginError
from robustkit.interfaces import Attack
from robustkit.threat import ThreatModel

SHOWN = 16
"""Broken points whose images a report shows."""


@dataclass(frozen=True)
class Block:
    """Points on the device: ids (N,), x (N, C, H, W) in [0, 1], labels y (N,)."""

    ids: Tensor
    x: Tensor
    y: Tensor


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
    crafting: bool = False
    """Whether searches go on where the model is fooled already, and steps keep all proposals."""

    def step(
        self, part: Attack, block: Block, rows: Tensor, tick: Callable[[int, int], None]
    ) -> Step:
        """Attack the points `rows` (M,) of a block and judge them.

        `tick` is told after each batch how many of them are done and how many broken. Raises
        BrokenPluginError, naming the attack, where it fails or gives no images, and where a set
        is made of proposals that leave the threat.
        """
        began, done, broken = time.perf_counter(), 0, 0
        verdicts: list[Verdicts] = []
        victims: list[CountingVictim] = []
        while done < len(rows):
            chunk = rows[done : done + self.batch_size]
            try:
                proposal, victim = self._propose(part, block, chunk)
            except torch.OutOfMemoryError:
                self._halve(part)
                continue
            verdict = self.judge.decide(proposal, block.x[chunk], block.y[chunk], self.threat)
            if self.crafting and bool(verdict.rejected.any()):
                seen = checks.breach(verdict.largest, str(self.threat))
                raise BrokenPluginError(
                    f"attack '{part.name}' is broken: {int(verdict.rejected.sum())} of"
                    f" {len(chunk)} proposals are {seen}"
                )
            verdicts.append(verdict)
            victims.append(victim)
            done += len(chunk)
            broken += int(verdict.broken.sum())
            tick(done, broken)
        seconds = time.perf_counter() - began
        return _step(block, rows, verdicts, victims, seconds, whole=self.crafting)

    def _propose(self, part: Attack, block: Block, rows: Tensor) -> tuple[Tensor, CountingVictim]:
        x, y, ids = block.x[rows], block.y[rows], block.ids[rows]
        drop = not (self.crafting or math.isinf(self.threat.eps))
        victim = CountingVictim(self.model, len(rows), x.device, drop=drop)
        rng = PointRng(self.seed, part.name, ids)
        noise = seeded(x.device, self.seed, part.name, ids.tolist())
        with blamed(part), torch.enable_grad(), noise:
            proposal = part.perturb(victim, x.clone(), y.clone(), self.threat, rng)
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
        self.batch_size //= 2
        torch.cuda.empty_cache()
        self.note(f"memory ran out; going on with batches of {self.batch_size}")


def _step(
    block: Block,
    rows: Tensor,
    verdicts: list[Verdicts],
    victims: list[CountingVictim],
    seconds: float,
    *,
    whole: bool,
) -> Step:
    """Put the batches of a step together; there is at least one."""
    broken = torch.cat([v.broken for v in verdicts])
    kept = torch.arange(len(rows), device=rows.device)
    if not whole:
        kept = kept[broken][spread(block.y[rows[broken]].tolist(), SHOWN)]
    x_adv = torch.cat([v.x_adv for v in verdicts])[kept]
    largest = [v.largest for v in verdicts if not math.isnan(v.largest)]
    return Step(
        rows=rows.cpu().numpy(),
        predictions=torch.cat([v.predictions for v in verdicts]).cpu().numpy(),
        broken=broken.cpu().numpy(),
        rejected=torch.cat([v.rejected for v in verdicts]).cpu().numpy(),
        sizes=torch.cat([v.sizes for v in verdicts]).cpu().numpy(),
        forwards=torch.cat([v.forwards for v in victims]).cpu().numpy().astype(np.float64),
        backwards=torch.cat([v.backwards for v in victims]).cpu().numpy().astype(np.float64),
        shown=rows[kept].cpu().numpy(),
        x_adv=x_adv.cpu().numpy(),
        seconds=seconds,
        spread=any(v.spread for v in victims),
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
