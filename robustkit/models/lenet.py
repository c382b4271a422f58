"""LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from robustkit.interfaces import Architecture
from robustkit.models.common import Classifier, Shape, Stack


class LeNet5(Architecture):
    """5x5 convolutions of 6 and 16 channels with pooling, then layers of 120 and 84.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, with ReLU
    and max-pooling as used since; the network of Kim et al. 2021 on MNIST.
    """

    name: ClassVar[str] = "lenet5"

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        stack = Stack(shape, mean, std)
        stack.conv(6, 5, padded=True).pool().conv(16, 5, padded=False).pool()
        stack.add(nn.Linear(stack.flatten(), 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        return Classifier(stack.module(), nn.Linear(84, classes))
