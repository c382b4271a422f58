"""Random numbers without state: each is a hash of seed, component, point and place."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

SHARED = -1


class PointRng:
    """Random numbers for points `ids` (N,): see robustkit.interfaces.Rng.

    A draw depends on nothing but its arguments, so it is the same in every batch, process and
    resumed run. Mixing is splitmix64's finaliser in wrapping int64 arithmetic, on any device.
    """

    def __init__(self, seed: int, component: str, ids: Tensor) -> None:
        self.seed, self.component, self.ids = seed, component, ids

    def __getitem__(self, rows: Tensor) -> PointRng:
        return PointRng(self.seed, self.component, self.ids[rows])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shared(self) -> SharedRng:
        """Draws of `shape` that are the same for all points."""
        return SharedRng(self.seed, self.component, self.ids)

    def uniform(self, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        """Draw uniformly from [0, 1), to 24 bits: (N, *shape)."""
        return _unit(self._bits(math.prod(shape), at)).view(len(self), *shape)

    def normal(self, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        """Draw from the standard normal, by Box and Muller: (N, *shape)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        u = _unit(self._bits(2 * half, at))
        radius = (-2 * torch.log1p(-u[:, :half])).sqrt()
        angle = 2 * math.pi * u[:, half:]
        draws = torch.cat((radius * angle.cos(), radius * angle.sin()), 1)
        return draws[:, :count].reshape(len(self), *shape)

    def choice(self, n: int, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        """Draw integers uniformly from [0, n): (N, *shape) of int64."""
        u = (_mix(self._bits(math.prod(shape), at)) & (2**53 - 1)).double() * 2.0**-53
        return (u * n).long().clamp(max=n - 1).view(len(self), *shape)

    def _bits(self, count: int, at: object) -> Tensor:
        key = hashlib.blake2b(repr((self.seed, self.component, at)).encode(), digest_size=8)
        seed = int.from_bytes(key.digest(), "little", signed=True)
        points = _mix(self.ids * _signed(0x9E3779B97F4A7C15) + seed)
        return _mix(points.unsqueeze(1) + _steps(count, self.ids.device))


class SharedRng(PointRng):
    """One stream for all points: draws have `shape`, and no leading N."""

    def __init__(self, seed: int, component: str, ids: Tensor) -> None:
        super().__init__(seed, component, torch.full_like(ids[:1], SHARED))

    def __getitem__(self, rows: Tensor) -> SharedRng:
        return self

    def uniform(self, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        return super().uniform(shape, at)[0]

    def normal(self, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        return super().normal(shape, at)[0]

    def choice(self, n: int, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        return super().choice(n, shape, at)[0]


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _steps(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _signed(0xD1B54A32D192ED03)


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & (2 ** (64 - bits) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _unit(bits: Tensor) -> Tensor:
    return _shift(bits, 40).float() * 2.0**-24
