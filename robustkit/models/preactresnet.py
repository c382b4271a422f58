"""ResNet-18 with activations before convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from robustkit.interfaces import Architecture
from robustkit.models.common import SMALLEST_SIDE, Classifier, Normalise, PreactBlock, Shape


class PreActResNet18(Architecture):
    """Eight pre-activation blocks in four stages, batch norm and ReLU, the mean over pixels.

    Source: He et al. 2016, Identity Mappings in Deep Residual Networks, as Rice et al. 2020,
    Overfitting in Adversarially Robust Deep Learning, train it on CIFAR-10: stages of width, 2, 4
    and 8 times it, each halving the image but the first. Weights start as torch's layers do, as in
    their code. A stage that meets too small an image keeps its size.
    """

    name: ClassVar[str] = "preactresnet18"
    width: int = Field(default=64, ge=1, le=1024, description="channels of the first stage")

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        channels, side = self.width, min(shape[1:])
        first = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        layers: list[nn.Module] = [Normalise(mean, std), first]
        for stage in range(4):
            stride = 2 if stage and side >= SMALLEST_SIDE else 1
            side = -(-side // stride)
            width = self.width * 2**stage
            layers += [PreactBlock(channels, width, stride), PreactBlock(width, width, 1)]
            channels = width
        layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return Classifier(nn.Sequential(*layers), nn.Linear(channels, classes))
