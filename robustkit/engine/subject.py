"""A model on a list of points, before any attack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustkit.engine import checks
from robustkit.engine.attacking import Block
from robustkit.engine.blocks import blocks
from robustkit.engine.device import keep_memory
from robustkit.engine.identity import hash_tensors
from robustkit.engine.probe import PROBED, probe
from robustkit.engine.quick import quickened
from robustkit.engine.verdict import Judge, exact, require_float32
from robustkit.engine.victim import frozen
from robustkit.interfaces import Images


@dataclass(frozen=True)
class Points:
    """Points of a data set by ids (N,), brought to a device block by block."""

    images: Images
    ids: Tensor
    device: torch.device
    boxed: bool
    """Whether pixels must lie in [0, 1]."""
    limit: int | None = None
    """How many were asked for; None for all that are labelled."""
    bits: frozenset[int] = frozenset()
    """Of the image files that must hold the points as they are."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> Tensor:
        """Labels (N,), on the processor."""
        return self.images.labels[self.ids].cpu()

    def block(self, where: slice) -> Block:
        """Load some of the points. Raises BadValueError for pixels where none may be."""
        ids = self.ids[where]
        x = checks.unit_range(self.images.take(ids).to(self.device), self.boxed)
        for bits in self.bits:
            checks.require_held(x, bits)
        return Block(ids.to(self.device), x, self.labels[where].to(self.device))

    def hash(self) -> str:
        """Give 16 hexadecimal digits of ids, labels and the first points' pixels."""
        return hash_tensors(self.ids, self.labels, self.images.take(self.ids[:PROBED]))


@dataclass(frozen=True)
class Subject:
    """What is known of a model on points: clean predictions (N,) and what to warn of."""

    model: nn.Module
    searched: nn.Module
    """What attacks ask: the model, or a cheaper rewriting of it. Verdicts are the model's own."""
    points: Points
    clean: Tensor
    judge: Judge
    warnings: tuple[str, ...]
    seconds: float


@contextmanager
def lent(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Lend a model out to a device, frozen and in exact arithmetic; it comes back as it was."""
    require_float32(model)
    keep_memory()
    home = next((weight.device for weight in model.parameters()), device)
    with frozen(model), exact():
        try:
            model.to(device)
            yield
        finally:
            model.to(home)


def look(model: nn.Module, points: Points, classes: Sequence[str], seed: int) -> Subject:
    """Probe a model and take its clean predictions; `classes` are the names that it knows.

    Raises BadValueError where model and data do not fit together.
    """
    began = time.perf_counter()
    of_data = points.images.classes
    checks.require_labels(points.labels, of_data)
    first = points.block(slice(0, PROBED))
    seen = probe(model, first.x, first.y, of_data, seed)
    judge = Judge(model, seed, seen.rounds)
    loaded = (points.block(where) for where in blocks(len(points)))
    clean = torch.cat([judge.predict(block.x, block.y).cpu() for block in loaded])
    searched = quickened(model, first.x) if seen.rounds == 1 else model
    warnings = seen.warnings + tuple(checks.class_names(classes, of_data))
    return Subject(model, searched, points, clean, judge, warnings, time.perf_counter() - began)
