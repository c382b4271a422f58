"""ResNet-18 as it is used on small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from robustkit.interfaces import Architecture
from robustkit.models.common import SMALLEST_SIDE, Classifier, Normalise, Shape


class ResNet18(Architecture):
    """Eight residual blocks in four stages behind a 3x3 convolution, then the mean over pixels.

    Source: He et al. 2016, Deep Residual Learning, in the form that is common on CIFAR-10: no
    pooling at the start, stages of width, 2, 4 and 8 times it, each halving the image but the
    first; a stage that meets too small an image keeps its size.
    """

    name: ClassVar[str] = "resnet18"
    width: int = Field(default=64, ge=1, le=1024, description="channels of the first stage")

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        channels, side = self.width, min(shape[1:])
        layers: list[nn.Module] = [Normalise(mean, std), *_conv(shape[0], channels, 3), nn.ReLU()]
        for stage in range(4):
            stride = 2 if stage and side >= SMALLEST_SIDE else 1
            side = -(-side // stride)
            width = self.width * 2**stage
            layers += [Block(channels, width, stride), Block(width, width, 1)]
            channels = width
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return Classifier(nn.Sequential(*layers), nn.Linear(channels, classes))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels, width, 3, stride), nn.ReLU(), *_conv(width, width, 3)
        )
        same = stride == 1 and channels == width
        self.shortcut = nn.Sequential(*([] if same else _conv(channels, width, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = nn.functional.relu(self.body(x) + self.shortcut(x))
        return out


def _conv(channels: int, width: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(width)
