"""The verdicts of one evaluation as they come in, and the tables that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustkit.analysis.statistics import rate
from robustkit.arrays import EvalPoints
from robustkit.engine.attacking import SHOWN, spread
from robustkit.engine.blocks import Step
from robustkit.interfaces import Attack, Spent
from robustkit.records import PartRecord, Rate

UNBROKEN, WRONG_WHEN_CLEAN, NO_VERDICT = -1, -2, -3
Confusion = tuple[tuple[int, ...], ...]


class Tally:
    """Verdicts on points with ids (N,), labels (N,) and clean predictions (N,).

    With `smallest`, every part attacks every clean-correct point, and the smallest perturbation
    counts; else each part attacks what the earlier ones left. With `separate` every part attacks
    all of them, too, and counts what it breaks itself.
    """

    def __init__(
        self,
        ids: Tensor,
        labels: Tensor,
        clean: Tensor,
        parts: Sequence[Attack],
        smallest: bool,
        separate: bool = False,
    ) -> None:
        n = len(ids)
        self.ids, self.labels, self.clean = ids.numpy(), labels.numpy(), clean.numpy()
        self.attacks, self.smallest, self.separate = parts, smallest or separate, separate
        self.correct = self.clean == self.labels
        self.adversarial = self.clean.copy()
        self.broken_by = np.where(self.correct, UNBROKEN, WRONG_WHEN_CLEAN)
        self.sizes, self.margins = np.full(n, math.nan), np.full(n, math.nan)
        self.forwards, self.backwards = np.zeros(n), np.zeros(n)
        self.steps: list[tuple[slice, int, Step]] = []

    @property
    def robust(self) -> NDArray[np.bool_]:
        """Clean-correct and unbroken so far (N,)."""
        return self.broken_by == UNBROKEN

    def open(self, block: slice) -> NDArray[np.int64]:
        """Give the places within a block that the next part attacks."""
        if self.smallest:
            return self.correct[block].nonzero()[0]
        state = self.broken_by[block]
        return ((state == UNBROKEN) | (state == NO_VERDICT)).nonzero()[0]

    def add(self, block: slice, part: int, step: Step) -> None:
        """Take what a part did to a block."""
        places = block.start + step.rows
        self.forwards[places] += step.forwards
        self.backwards[places] += step.backwards
        smaller = step.broken & ~(self.sizes[places] <= step.sizes)
        won = places[smaller]
        self.broken_by[won] = part
        self.adversarial[won] = step.predictions[smaller]
        self.sizes[won] = step.sizes[smaller]
        self.margins[places] = np.fmin(self.margins[places], step.margins)
        refused = places[step.rejected]
        self.broken_by[refused[self.broken_by[refused] == UNBROKEN]] = NO_VERDICT
        self.steps.append((block, part, step))

    def rate(self, n: int) -> Rate:
        """Give robust accuracy on the first n points."""
        return rate(int(self.robust[:n].sum()), n)

    def first(self, n: int) -> Tally:
        """Give the tally of the first n points alone; blocks end there."""
        ids, labels, clean = (torch.from_numpy(a[:n]) for a in (self.ids, self.labels, self.clean))
        tally = Tally(ids, labels, clean, self.attacks, self.smallest, self.separate)
        for block, part, step in self.steps:
            if block.stop <= n:
                tally.add(block, part, step)
        return tally

    def points(self) -> EvalPoints:
        """Give the table of points."""
        return EvalPoints(
            ids=self.ids,
            labels=self.labels,
            clean_predictions=self.clean,
            adversarial_predictions=self.adversarial,
            robust=self.robust,
            broken_by=self.broken_by.astype(np.int64),
            sizes=self.sizes,
            margins=np.where(self.robust, self.margins, math.nan),
            forwards=self.forwards,
            backwards=self.backwards,
        )

    def parts(self) -> tuple[PartRecord, ...]:
        """Give a row a part."""
        rows = []
        for place, attack in enumerate(self.attacks):
            steps = [step for _, part, step in self.steps if part == place]
            rows.append(
                PartRecord(
                    name=attack.name,
                    options=attack.dump(),
                    attacked=sum(len(step.rows) for step in steps),
                    broken=sum(int(step.broken.sum()) for step in steps)
                    if self.separate
                    else int((self.broken_by == place).sum()),
                    seconds=sum(step.seconds for step in steps),
                    forwards=float(sum(step.forwards.sum() for step in steps)),
                    backwards=float(sum(step.backwards.sum() for step in steps)),
                    spread=any(step.spread for step in steps),
                    rejected=sum(int(step.rejected.sum()) for step in steps),
                    stopped=sum(step.stopped for step in steps),
                )
            )
        return tuple(rows)

    def spent(self) -> list[Spent]:
        """Give what each part did to each point that it attacked."""
        return [
            Spent(
                broken=self._joined(place, "broken"),
                forwards=self._joined(place, "forwards"),
                backwards=self._joined(place, "backwards"),
            )
            for place in range(len(self.attacks))
        ]

    def _joined(self, part: int, what: str) -> Tensor:
        """Put what a part's steps say of each point in a row: (M,)."""
        arrays = [getattr(step, what) for _, p, step in self.steps if p == part]
        return torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.bool_), *arrays]))

    def largest(self, part: int) -> float:
        """Give the largest size that was rejected of a part's proposals; NaN where none had one."""
        sizes = [s.largest for _, p, s in self.steps if p == part and not math.isnan(s.largest)]
        return max(sizes, default=math.nan)

    def confusion(self, predictions: NDArray[np.int64], classes: int) -> Confusion:
        """Count labels (rows) by predictions (columns)."""
        counts = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts, (self.labels, predictions), 1)
        return tuple(tuple(row) for row in counts.tolist())

    def shown(self) -> tuple[Tensor, NDArray[np.float32]]:
        """Choose broken points over all classes: their places (M,), and x_adv (M, C, H, W)."""
        found: dict[int, NDArray[np.float32]] = {}
        for block, part, step in self.steps:
            for row, x_adv in zip(step.shown.tolist(), step.x_adv, strict=True):
                if self.broken_by[block.start + row] == part:
                    found[block.start + row] = x_adv
        places = sorted(found)
        chosen = [places[i] for i in spread(self.labels[places].tolist(), SHOWN)]
        images = np.stack([found[p] for p in chosen]) if chosen else np.zeros((0,), np.float32)
        return torch.tensor(chosen, dtype=torch.int64), images

    def closest(self) -> tuple[Tensor, NDArray[np.float32]]:
        """Choose the robust points that came closest, of those whose images steps kept.

        Their places (M,), those of least margin first, and x_adv (M, C, H, W).
        """
        found: dict[int, NDArray[np.float32]] = {}
        for block, _, step in self.steps:
            margins = dict(zip(step.rows.tolist(), step.margins.tolist(), strict=True))
            for row, x_adv in zip(step.shown.tolist(), step.x_adv, strict=True):
                place = block.start + row
                if self.robust[place] and margins[row] == self.margins[place]:
                    found[place] = x_adv
        chosen = sorted(found, key=lambda place: (self.margins[place], place))[:SHOWN]
        images = np.stack([found[p] for p in chosen]) if chosen else np.zeros((0,), np.float32)
        return torch.tensor(chosen, dtype=torch.int64), images
