"""Broken architectures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from broken import breaks
from robustkit import Architecture


class Net(nn.Module):
    """Normalised pixels, a hidden layer, logits."""

    def __init__(self, inputs: int, classes: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.hidden, self.head = nn.Linear(inputs, 8), nn.Linear(8, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.hidden(((x - self.mean) / self.std).flatten(1)).tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class HealthyModel(Architecture):
    """A hidden layer of eight."""

    name = "healthy"

    def build(
        self, shape: tuple[int, int, int], classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        channels = (1, -1, 1, 1)
        size = shape[0] * shape[1] * shape[2]
        net = Net(
            size, classes, torch.tensor(mean).view(channels), torch.tensor(std).view(channels)
        )
        return self.after(net)

    def after(self, net: Any) -> nn.Module:
        return net


class Wrapped(nn.Module):
    """A net whose forward pass goes through a function."""

    def __init__(self, net: nn.Module, function: Any) -> None:
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net, x)


def through(function: Any) -> Any:
    """Make an `after` that runs the net through a function of net and images."""
    return lambda self, net: Wrapped(net, function)


@breaks("logits-for-any-images", "have shape (4, 9)")
class OneClassShort(HealthyModel):
    after = through(lambda net, x: net(x)[:, :9])


@breaks("logits-for-any-images", "raises RuntimeError")
class SquareImagesOnly(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        torch.empty(64, net.hidden.in_features).view(64, 64)
        return net


@breaks("logits-for-any-images", "none of the sizes")
class NoSize(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        from robustkit import BadValueError

        raise BadValueError("too small an image")


@breaks("logits-for-any-images", "float64")
class DoubleLogits(HealthyModel):
    after = through(lambda net, x: net(x).double())


@breaks("logits-for-any-images", "not finite")
class Infinite(HealthyModel):
    after = through(lambda net, x: net(x) / 0)


@breaks("head-of-features", "is not the model")
class ScaledHead(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        class Scaled(Net):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * super().forward(x)

        net.__class__ = Scaled
        return net


@breaks("head-of-features", "alone")
class HeadAlone(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        wrapped = Wrapped(net, lambda net, x: net(x))
        wrapped.head = net.head
        return wrapped


@breaks("gradients-reach-images", "no graph")
class DetachedImages(HealthyModel):
    after = through(lambda net, x: net(x.detach()))


@breaks("gradients-reach-images", "no gradient")
class Quantised(HealthyModel):
    after = through(lambda net, x: net((4 * x).round() / 4))


@breaks("eval-deterministic", "two passes")
class Noisy(HealthyModel):
    after = through(lambda net, x: net(x + 0.1 * torch.rand_like(x)))


@breaks("eval-deterministic", "buffers")
class KeepsStatistics(HealthyModel):
    after = through(lambda net, x: (net(x), net.mean.add_(1e-9 + x.mean()))[0] * 0 + x.sum())


@breaks("points-not-mixed", "alone")
class BatchStatistics(HealthyModel):
    after = through(lambda net, x: net(x) - net(x).mean(0))


@breaks("weights-survive", "other logits")
class HiddenWeights(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        scale = torch.rand(())
        return Wrapped(net, lambda net, x: scale * net(x))


@breaks("build-seeded", "two models")
class OwnSeed(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        generator = torch.Generator()
        generator.seed()
        net.hidden.weight.data.uniform_(generator=generator)
        return net


@breaks("build-seeded", "does not matter")
class FixedSeed(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        for parameter in net.parameters():
            nn.init.constant_(parameter, 0.5)
        return net


@breaks("normalises-inside", "`mean` and `std`")
class NoNormalisation(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        net.mean.zero_()
        net.std.fill_(1)
        return net


@breaks("normalises-inside", "`mean` and `std`")
class MeanAlone(HealthyModel):
    def after(self, net: Any) -> nn.Module:
        net.std.fill_(1)
        return net
