"""An epoch in batches: each real point once, in an order that seed and epoch decide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustkit.data.images import unit
from robustkit.data.splits import permutation
from robustkit.errors import BadValueError
from robustkit.interfaces import Batch, Images, Rng

RESIDENT = 2**30
"""Images up to this many bytes live on the device; others are read batch by batch."""
DRAWN = (0, 1)
"""Tells the order of points that make up a share from that of the others."""


class DeviceImages:
    """Images as float in [0, 1] on a device, from a copy there where they are small enough."""

    def __init__(self, images: Images, device: torch.device | str = "cpu") -> None:
        self.images, self.device = images, torch.device(device)
        self.labels = images.labels.to(self.device)
        small = len(images) * math.prod(images.shape) <= RESIDENT
        self._resident = images.take(torch.arange(len(images))).to(self.device) if small else None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, ids: Tensor) -> Tensor:
        """Give the images of ids (n,) as float32 (n, C, H, W) in [0, 1]."""
        if self._resident is not None:
            return unit(self._resident[ids.to(self.device)])
        return unit(self.images.take(ids).to(self.device, non_blocking=True))

    def batch(self, ids: Tensor) -> Batch:
        """Give the points of ids (n,) as a batch of real points."""
        here = ids.to(self.device)
        return Batch(self.take(ids), self.labels[here], here, torch.zeros_like(here))

    def others(self, ids: Tensor, rng: Rng, at: object) -> Tensor:
        """Draw another point for each of ids (n,): ids (n,)."""
        return rng.choice(len(self), at=at)


class Batches:
    """The batches of each epoch, or process `rank`'s part of them.

    An epoch has ceil(n / batch_size) steps whose sizes differ by at most one, so that no step sees
    only a few points; processes share a step's points in the same way. Every point comes exactly
    once an epoch, and the processes' parts, joined in order, are the batch that one process sees.
    """

    def __init__(
        self, images: DeviceImages, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise BadValueError(f"no batches of {batch_size} points for process {rank} of {world}")
        self.images, self.seed, self.rank, self.world = images, seed, rank, world
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def steps(self, epoch: int) -> Sequence[Tensor]:
        """Give the ids (n,) of each step's points, of all processes."""
        return permutation(len(self.images), self.seed, epoch).tensor_split(len(self))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Give the batch of each step."""
        for whole in self.steps(epoch):
            places = torch.arange(len(whole), device=self.images.device)
            mine = places.tensor_split(self.world)[self.rank]
            yield self.images.batch(whole[mine.cpu()]).replace(place=mine)


@dataclass(frozen=True)
class Share:
    """Points that make up a share of each batch: generated ones, or labelled ones."""

    ids: Tensor
    """Of these points (n,)."""
    size: float
    """In (0, 1)."""
    key: str
    """Of the recipe, which says the size."""


class SharedBatches(Batches):
    """Batches of which some points make up a share, rounded in each batch.

    An epoch is one of the others, in the order that they have by themselves. Those of the share
    come in seeded orders of all of them, one order after another, over all epochs.
    """

    def __init__(
        self,
        images: DeviceImages,
        share: Share,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(images, batch_size, seed, rank, world)
        self.share = share
        self.most = round(share.size * batch_size)
        if not 0 < self.most < batch_size:
            raise BadValueError(
                f"{share.key} {share.size:g} of fit.batch_size {batch_size} is {self.most} points;"
                " each batch needs points of this kind and others"
            )
        here = torch.zeros(len(images), dtype=torch.bool)
        here[share.ids] = True
        self.others = (~here).nonzero().squeeze(1)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return math.ceil(len(self.others) / (self.batch_size - self.most))

    def steps(self, epoch: int) -> Sequence[Tensor]:
        """Give the ids (n,) of each step's points, of all processes."""
        order = permutation(len(self.others), self.seed, epoch)
        steps = self.others[order].tensor_split(len(self))
        counts = [self._beside(len(others)) for others in steps]
        first, found = epoch * sum(counts), []
        for others, count in zip(steps, counts, strict=True):
            found.append(_among(others, self._drawn(first, count)))
            first += count
        return found

    def _beside(self, others: int) -> int:
        """Say how many points of the share go with so many others."""
        size = self.share.size
        return min(self.most, max(1, round(others * size / (1 - size))))

    def _drawn(self, first: int, count: int) -> Tensor:
        """Give the ids (count,) at a place of the sequence of all orders."""
        n = len(self.share.ids)
        places = torch.arange(first, first + count)
        rounds = places // n
        return torch.cat(
            [self._ordered(r)[places[rounds == r] % n] for r in rounds.unique().tolist()]
        )

    def _ordered(self, r: int) -> Tensor:
        if self._order[0] != r:
            order = permutation(len(self.share.ids), self.seed, r, *DRAWN)
            self._order = r, self.share.ids[order]
        return self._order[1]


def _among(others: Tensor, some: Tensor) -> Tensor:
    """Spread some ids evenly among others, so that each process gets its share of both."""
    total = len(others) + len(some)
    places = torch.arange(total)
    here = (places + 1) * len(some) // total > places * len(some) // total
    ids = torch.empty(total, dtype=torch.int64)
    ids[here], ids[~here] = some, others
    return ids
