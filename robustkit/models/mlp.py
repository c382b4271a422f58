"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from robustkit.interfaces import Architecture
from robustkit.models.common import Classifier, Normalise, Shape

Width = Annotated[int, Field(ge=1, le=65536)]


class MLP(Architecture):
    """Fully connected layers with ReLU on the pixels; no hidden layer makes a linear model.

    Source: the 784-1000-1000-10 network of Huang et al. 2015, tables 1 and 2.
    """

    name: ClassVar[str] = "mlp"
    hidden: tuple[Width, ...] = Field(default=(1000, 1000), description="widths of hidden layers")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="after each hidden layer")

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights."""
        widths = (math.prod(shape), *self.hidden)
        layers: list[nn.Module] = [Normalise(mean, std), nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(self.dropout)]
        return Classifier(nn.Sequential(*layers), nn.Linear(widths[-1], classes))
