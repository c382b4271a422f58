"""Real points and generated ones in the same batches."""

from __future__ import annotations

import torch
from torch import Tensor

from robustkit.data.batches import DeviceImages, Share
from robustkit.interfaces import Batch, Images, Rng


class Mixture(DeviceImages):
    """Real images, and generated ones that make up a share of each batch.

    The ids of generated points go on where those of the real ones end.
    """

    def __init__(self, real: DeviceImages, generated: Images, share: float) -> None:
        self.images, self.device = real.images, real.device
        self.real, self.generated = real, DeviceImages(generated, real.device)
        self.labels = torch.cat((real.labels, self.generated.labels))
        made = torch.arange(len(real), len(real) + len(generated))
        self.share = Share(made, share, "generated.share")

    def __len__(self) -> int:
        return len(self.real) + len(self.generated)

    def take(self, ids: Tensor) -> Tensor:
        """Give the images of ids (n,) as float32 (n, C, H, W) in [0, 1]."""
        made = self._made(ids)
        x = torch.empty((len(ids), *self.images.shape), device=self.device)
        x[~made] = self.real.take(ids[~made])
        x[made] = self.generated.take(ids[made] - len(self.real))
        return x

    def batch(self, ids: Tensor) -> Batch:
        """Give the points of ids (n,) as a batch, which says whether they are generated."""
        batch = super().batch(ids)
        return batch.replace(source=self._made(batch.ids).long())

    def others(self, ids: Tensor, rng: Rng, at: object) -> Tensor:
        """Draw another real point for each real one, and a generated one for each generated."""
        real = len(self.real)
        generated = real + rng.choice(len(self.generated), at=at)
        return generated.where(self._made(ids), rng.choice(real, at=at))

    def _made(self, ids: Tensor) -> Tensor:
        return ids >= len(self.real)
