"""The small convolutional network of the policy-gradient paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from robustkit.interfaces import Architecture
from robustkit.models.common import Classifier, Shape, Stack

HIDDEN = 512


class CNN(Architecture):
    """3x3 convolutions 32-32-pool-64-64-pool, a hidden layer of 512, LayerNorm over the logits.

    Source: Gupta et al. 2020, section 4 and figure 2, of which the text keeps a shallow network in
    VGG's style with LayerNorm just before the softmax; the widths and dropout are those of Keras'
    CIFAR-10 example (ours). Images too small for a pooling skip it.
    """

    name: ClassVar[str] = "cnn"
    width: float = Field(default=1.0, gt=0, le=16, description="factor of all layers' widths")
    dropout: float = Field(
        default=0.25, ge=0, lt=0.5, description="after each block; twice it after the hidden layer"
    )
    logit_norm: bool = Field(default=True, description="LayerNorm over the logits")

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        narrow, wide, hidden = (max(1, round(n * self.width)) for n in (32, 64, HIDDEN))
        stack = Stack(shape, mean, std)
        for channels in (narrow, wide):
            stack.conv(channels, 3, padded=True).conv(channels, 3, padded=False)
            stack.pool().add(nn.Dropout(self.dropout))
        stack.add(nn.Linear(stack.flatten(), hidden), nn.ReLU(), nn.Dropout(2 * self.dropout))
        head = [nn.Linear(hidden, classes), *([nn.LayerNorm(classes)] * self.logit_norm)]
        return Classifier(stack.module(), nn.Sequential(*head))
