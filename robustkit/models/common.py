"""What the architectures share: normalisation, the two halves, and stacking on small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
SMALLEST_SIDE = 4
"""A layer that would shrink a side of the image from here on leaves it as it is."""


class Normalise(nn.Module):
    """Bring images (N, C, H, W) in [0, 1] to mean 0 and deviation 1 a channel.

    A channel that is constant over the training data is only centred.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        scale = [s if s > 0 else 1.0 for s in std]
        self.register_buffer("std", torch.tensor(scale, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """A model in two halves: images in [0, 1] to features (N, F), features to logits (N, C)."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class Normalised(nn.Module):
    """A network of normalised images behind their normalisation; grey ones get its `channels`."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], net: nn.Module, channels: int = 0
    ) -> None:
        super().__init__()
        self.normalise, self.net, self.channels = Normalise(mean, std), net, channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalise(x)
        if x.shape[1] < self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        logits: Tensor = self.net(x)
        return logits


class Headed(Normalised):
    """A network whose last module is a linear layer, the head; `features` are what reaches it."""

    @property
    def head(self) -> nn.Module:
        """Features (N, F) to logits."""
        return list(self.net.modules())[-1]

    def features(self, x: Tensor) -> Tensor:
        """Give the features (N, F) of images (N, C, H, W) in [0, 1]."""
        seen: list[Tensor] = []
        with self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            self(x)
        return seen[0]


class PreactBlock(nn.Module):
    """Twice batch norm, activation and a 3x3 convolution, beside a shortcut.

    Where shapes differ, the shortcut is a 1x1 convolution of the first activation. Dropout comes
    before the second convolution. Source: He et al. 2016, Identity Mappings in Deep Residual
    Networks, figure 1b; Zagoruyko and Komodakis 2016, figure 1d.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        activation: type[nn.Module] = nn.ReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(channels), activation())
        self.rest = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            activation(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        same = stride == 1 and channels == width
        self.shortcut = None if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        out: Tensor = self.rest(active) + (self.shortcut(active) if self.shortcut else x)
        return out


class Stack:
    """Layers in a row, from normalisation on, that watch how much of the image is left."""

    def __init__(self, shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        self.channels, self.height, self.width = shape
        self.layers: list[nn.Module] = [Normalise(mean, std)]

    def add(self, *layers: nn.Module) -> Self:
        """Append layers that keep the shape."""
        self.layers += layers
        return self

    def conv(self, channels: int, kernel: int, *, padded: bool) -> Self:
        """Append a convolution and a ReLU; too small an image is padded in any case."""
        lost = kernel - 1
        if padded or min(self.height, self.width) - lost < SMALLEST_SIDE:
            lost = 0
        padding = 0 if lost else kernel // 2
        self.add(nn.Conv2d(self.channels, channels, kernel, padding=padding), nn.ReLU())
        self.channels, self.height, self.width = channels, self.height - lost, self.width - lost
        return self

    def pool(self) -> Self:
        """Append a max-pooling by 2, unless the image is too small for it."""
        if min(self.height, self.width) >= SMALLEST_SIDE:
            self.add(nn.MaxPool2d(2))
            self.height, self.width = self.height // 2, self.width // 2
        return self

    def flatten(self) -> int:
        """Append the step from images to vectors, and give their length."""
        self.add(nn.Flatten())
        return self.channels * self.height * self.width

    def module(self) -> nn.Sequential:
        """Give the layers as a module."""
        return nn.Sequential(*self.layers)
