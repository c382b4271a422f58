"""VGG as it is used on small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from robustkit.interfaces import Architecture
from robustkit.models.common import Classifier, Normalise, Shape

STAGES = (64, 128, 256, 512, 512)


class VGG13(Architecture):
    """Five stages of two 3x3 convolutions and a max-pooling, the mean over pixels, a linear layer.

    Source: Simonyan and Zisserman 2015, configuration B, in the form that is common on CIFAR-10:
    one linear layer in place of three. A stage that meets too small an image does not pool. Weights
    start as torchvision's VGG does: He et al.'s normal by fan-out, the last layer's of deviation
    0.01, biases 0.
    """

    name: ClassVar[str] = "vgg13"
    batch_norm: bool = Field(default=True, description="batch norm after each convolution")
    width: int = Field(default=64, ge=1, le=1024, description="channels of the first stage")

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        channels, side = shape[0], min(shape[1:])
        layers: list[nn.Module] = [Normalise(mean, std)]
        for stage in STAGES:
            width = stage * self.width // STAGES[0]
            for before in (channels, width):
                layers.append(_convolution(before, width))
                layers += [nn.BatchNorm2d(width)] if self.batch_norm else []
                layers.append(nn.ReLU())
            if side >= 2:
                layers.append(nn.MaxPool2d(2))
            channels, side = width, side // 2
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        head = nn.Linear(channels, classes)
        nn.init.normal_(head.weight, 0, 0.01)
        nn.init.zeros_(head.bias)
        return Classifier(nn.Sequential(*layers), head)


def _convolution(channels: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, width, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
