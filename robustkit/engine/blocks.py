"""The order of points, and blocks of it: evaluation's unit of work, resume and sharding."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustkit.engine.rng import PointRng
from robustkit.errors import BadValueError
from robustkit.files import read_arrays, write_whole

Ids = Tensor | NDArray[np.int64] | Sequence[int]
BLOCK = 512
"""Points of a block. What is written after each attack on a block is never done again."""


def order(labels: Tensor, seed: int, limit: int | None = None, named: Ids | None = None) -> Tensor:
    """Give the ids (n,) of labelled points in seeded order; a larger limit extends a smaller one.

    `named` ids come instead, in their own order. Raises BadValueError for a limit below 1, where no
    point has a label, and for named ids that are not of labelled points, each once.
    """
    if limit is not None and limit < 1:
        raise BadValueError(f"limit {limit} leaves no point; it must be at least 1")
    if named is not None:
        return _named(labels.cpu(), named)[:limit]
    ids = torch.arange(len(labels))
    keys = PointRng(seed, "order", ids).choice(2**62)
    shuffled = ids[keys.argsort(stable=True)]
    shuffled = shuffled[labels.cpu()[shuffled] >= 0][:limit]
    if not len(shuffled):
        raise BadValueError("no point of the data set has a label, so there is nothing to evaluate")
    return shuffled


def _named(labels: Tensor, named: Ids) -> Tensor:
    ids = torch.as_tensor(named)
    if ids.dim() != 1 or not len(ids) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise BadValueError(f"ids are {ids.dtype} {tuple(ids.shape)}, not integers (n,)")
    ids = ids.to("cpu", torch.int64)
    outside = ids[(ids < 0) | (ids >= len(labels))]
    if len(outside):
        raise BadValueError(f"id {outside[0]} is not of the {len(labels)} points of the data set")
    if len(ids.unique()) < len(ids):
        raise BadValueError("ids name a point twice")
    if bool((labels[ids] < 0).any()):
        raise BadValueError(f"point {ids[labels[ids] < 0][0]} of the data set has no label")
    return ids


def blocks(n: int) -> Iterator[slice]:
    """Cut n points into blocks."""
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


@dataclass(frozen=True)
class Step:
    """What one part of an attack did to one block; arrays are (M,), a row an attacked point."""

    rows: NDArray[np.int64]
    """Places of the attacked points within the block."""
    predictions: NDArray[np.int64]
    broken: NDArray[np.bool_]
    rejected: NDArray[np.bool_]
    sizes: NDArray[np.float64]
    margins: NDArray[np.float64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]
    shown: NDArray[np.int64]
    """Places within the block of a few broken points, and of the few that came closest to it, whose
    images are `x_adv`; where a set is made, of all points."""
    x_adv: NDArray[np.float32]
    seconds: float
    spread: bool
    stopped: int
    """Points whose search ran out of time."""
    largest: float

    def write(self, path: Path) -> None:
        """Write the step, whole or not at all."""
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        write_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a step. Raises BadValueError where the file is damaged."""
        arrays = read_arrays(path)
        missing = {f.name for f in fields(cls)} - arrays.keys()
        if missing:
            raise BadValueError(f"'{path}' is damaged: it lacks {', '.join(sorted(missing))}")
        plain = {name: a.item() if a.ndim == 0 else a for name, a in arrays.items()}
        return cls(**plain)


@dataclass
class Partial:
    """eval/<stem>.partial/: the steps of an evaluation that has not ended.

    With `resume` the steps that are there are taken up (a damaged one is made again), else they
    are dropped.
    """

    path: Path
    resume: bool
    done: dict[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.resume:
            self.drop()
            return
        for path in sorted(self.path.glob("block*.npz")):
            try:
                self.done[path.name] = Step.read(path)
            except BadValueError:
                continue

    def get(self, block: slice, part: int) -> Step | None:
        """Give a step that was done, or None."""
        return self.done.get(self._name(block, part))

    def begun(self, start: int) -> int | None:
        """Give where a block ends that starts here and has a step done; None where none has."""
        ends = [re.fullmatch(rf"block{start:06}-(\d+)-part\d+\.npz", name) for name in self.done]
        return next((int(end[1]) for end in ends if end), None)

    def keep(self, block: slice, part: int, step: Step) -> None:
        """Write a step that is done."""
        step.write(self.path / self._name(block, part))

    def drop(self) -> None:
        """Forget the steps: the evaluation has ended, or begins anew."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _name(self, block: slice, part: int) -> str:
        return f"block{block.start:06}-{block.stop:06}-part{part:02}.npz"
