"""Wide residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import nn

from robustkit.interfaces import Architecture
from robustkit.models.common import SMALLEST_SIDE, Classifier, Normalise, PreactBlock, Shape

ACTIVATIONS = {"relu": nn.ReLU, "swish": nn.SiLU}


class WideResNet(Architecture):
    """Three stages of (depth - 4) / 6 wide pre-activation blocks, then the mean over pixels.

    Source: Zagoruyko and Komodakis 2016, Wide Residual Networks; with swish as in Gowal et al.
    2020, Uncovering the Limits of Adversarial Training. Convolutions start as He et al.'s normal by
    fan-out, the last layer's bias at 0, as in the code of Zhang et al. 2019 (TRADES). A stage that
    meets too small an image keeps its size.
    """

    name: ClassVar[str] = "wideresnet"
    depth: int = Field(default=28, ge=10, le=1000, description="layers: 10, 16, 22, 28, 34, ...")
    width: int = Field(default=10, ge=1, le=64, description="stages have 16, 32, 64 times it")
    activation: Literal["relu", "swish"] = Field(default="relu", description="before convolutions")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="inside each block")

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 4:
            right = max(10, depth - (depth - 1) % 6 + 3)
            raise ValueError(f"it must be 6n + 4, such as {right}")
        return depth

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        activation, channels, side = ACTIVATIONS[self.activation], 16, min(shape[1:])
        first = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        layers: list[nn.Module] = [Normalise(mean, std), first]
        for stage in range(3):
            stride = 2 if stage and side >= SMALLEST_SIDE else 1
            side = -(-side // stride)
            for _ in range((self.depth - 4) // 6):
                width = 16 * self.width * 2**stage
                layers.append(PreactBlock(channels, width, stride, activation, self.dropout))
                channels, stride = width, 1
        layers += [nn.BatchNorm2d(channels), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        features, head = nn.Sequential(*layers), nn.Linear(channels, classes)
        for layer in features.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(head.bias)
        return Classifier(features, head)


class WideResNet16x10(WideResNet):
    """The wide residual network of depth 16 and width 10."""

    name: ClassVar[str] = "wideresnet-16-10"
    depth: Literal[16] = Field(default=16, description="layers")
    width: Literal[10] = Field(default=10, description="stages have 16, 32, 64 times it")


class WideResNet28x10(WideResNet):
    """The wide residual network of depth 28 and width 10."""

    name: ClassVar[str] = "wideresnet-28-10"
    depth: Literal[28] = Field(default=28, description="layers")
    width: Literal[10] = Field(default=10, description="stages have 16, 32, 64 times it")


class WideResNet34x10(WideResNet):
    """The wide residual network of depth 34 and width 10."""

    name: ClassVar[str] = "wideresnet-34-10"
    depth: Literal[34] = Field(default=34, description="layers")
    width: Literal[10] = Field(default=10, description="stages have 16, 32, 64 times it")


class WideResNet40x10(WideResNet):
    """The wide residual network of depth 40 and width 10."""

    name: ClassVar[str] = "wideresnet-40-10"
    depth: Literal[40] = Field(default=40, description="layers")
    width: Literal[10] = Field(default=10, description="stages have 16, 32, 64 times it")
