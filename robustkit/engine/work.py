"""The work of an attack: each of its parts on each block of points, gone on with after a kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from robustkit.engine.attacking import Attacker
from robustkit.engine.blocks import Partial
from robustkit.engine.limits import NO_LIMITS, Limits
from robustkit.engine.subject import Points
from robustkit.engine.tally import Tally
from robustkit.errors import BadValueError


class EvalProgress(Protocol):
    """Who watches an attack's work."""

    def update(self, attack: str, part: str, done: int, total: int, bound: float) -> None:
        """Hear that `done` of `total` units of an attack are done, and at most `bound` robust."""
        ...

    def note(self, line: str) -> None:
        """Hear something worth a line."""
        ...


class Unwatched:
    """The progress of work that nobody watches."""

    def update(self, attack: str, part: str, done: int, total: int, bound: float) -> None:
        pass

    def note(self, line: str) -> None:
        pass


def attack_points(
    name: str,
    attacker: Attacker,
    points: Points,
    tally: Tally,
    partial: Partial,
    progress: EvalProgress,
    limits: Limits = NO_LIMITS,
) -> int:
    """Run every part of the attack `name` on each block, or take up what was done, into a tally.

    Gives how many points, the first ones, are through: all, or as many as the limits allow.

    Raises BrokenPluginError for a part that fails, and BadValueError where a budget ends before any
    point is through.
    """
    done, n = 0, len(points)
    while done < n:
        room = limits.room(tally, done)
        if not room:
            break
        where = slice(done, min(n, partial.begun(done) or done + room))
        block = None
        for place, part in enumerate(tally.attacks):
            if not done and place and limits.used_up(tally):
                raise BadValueError(
                    f"attack '{name}': the budget ended before the first {where.stop} points were"
                    " through; what is done is kept: go on with --resume and a larger --budget"
                )
            tick = _ticker(name, tally, where, place, progress)
            rows = tally.open(where)
            step = partial.get(where, place)
            if step is None or not np.array_equal(step.rows, rows):
                if not len(rows):
                    continue
                block = block or points.block(where)
                step = attacker.step(part, block, torch.from_numpy(rows).to(points.device), tick)
                partial.keep(where, place, step)
            tally.add(where, place, step)
            tick(len(rows), 0)
        done = where.stop
        if limits.set:
            found = tally.rate(done)
            progress.note(
                f"{name}: {done} of {n} points: robust {100 * found.value:.1f} %"
                f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
            )
    return done


def _ticker(
    name: str, tally: Tally, where: slice, place: int, progress: EvalProgress
) -> Callable[[int, int], None]:
    """Give what tells the progress of one step: rows that are done, and broken of them."""
    n, parts, part = len(tally.ids), len(tally.attacks), tally.attacks[place]
    size, rows = where.stop - where.start, len(tally.open(where))
    before = where.start * parts + place * size

    def tick(done: int, broken: int) -> None:
        units = before + (size * done // rows if rows else size)
        # What a search for the smallest perturbation breaks may be broken already.
        bound = float(tally.robust.sum() - (0 if tally.smallest else broken)) / n
        progress.update(name, part.name, units, n * parts, bound)

    return tick
