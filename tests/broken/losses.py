"""Broken losses, and what any component can break."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ConfigDict, Field, PrivateAttr, field_validator
from torch import Tensor
from torch.nn import functional as F

from broken import breaks
from robustkit import At, Loss

HERE = At()


class HealthyLoss(Loss):
    """Cross-entropy, weighted."""

    name = "healthy"
    weight: float = Field(default=1.0, gt=0, description="factor")

    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return self.weight * F.cross_entropy(logits, y, reduction="none")


@breaks("named-as-registered", "registered as 'other'", registered="other")
class OtherName(HealthyLoss):
    pass


@breaks("named-as-registered", "small letters")
class BadName(HealthyLoss):
    name = "Not_A Name"


@breaks("documented", "no docstring")
class Undocumented(HealthyLoss):
    pass


@breaks("options-described", "no description")
class Undescribed(HealthyLoss):
    power: int = 2


@breaks("options-described", "no default")
class NoDefault(HealthyLoss):
    power: int = Field(description="no default")


@breaks("options-refused", "unknown option is not refused")
class TakesAnything(HealthyLoss):
    model_config = ConfigDict(extra="ignore")


@breaks("options-refused", "raises TypeError")
class Leaks(HealthyLoss):
    power: Any = Field(default=2, description="checked by an expression that may raise")

    @field_validator("power")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        return value if value > 0 else 1


@breaks("options-refused", "in one line")
class Talks(HealthyLoss):
    @field_validator("weight")
    @classmethod
    def _small(cls, value: float) -> float:
        if value > 1e6:
            raise ValueError("too large\nfar too large")
        return value


@breaks("rebuilt-from-dump", "another one when built from dump()")
class DropsAnOption(HealthyLoss):
    def dump(self) -> dict[str, Any]:
        return {"name": self.name}


@breaks("rebuilt-from-dump", "another one when built from JSON")
class KeysOfNumbers(HealthyLoss):
    rewards: dict[Any, float] = Field(default={1: 2.0}, description="JSON's keys are text")

    def dump(self) -> dict[str, Any]:
        return {**super().dump(), "rewards": self.rewards}


@breaks("rebuilt-from-dump", "names 'another'")
class DumpsAnotherName(HealthyLoss):
    def dump(self) -> dict[str, Any]:
        return {**super().dump(), "name": "another"}


@breaks("frozen", "can be set")
class Thawed(HealthyLoss):
    model_config = ConfigDict(frozen=False)


SHARED = HealthyLoss()


class Outer(HealthyLoss):
    """A loss with another inside."""

    inner: Loss = Field(default="cross-entropy", description="inner loss")  # type: ignore[assignment]


@breaks("defaults-not-shared", "share their 'inner'")
class SharedInner(Outer):
    inner: Loss = Field(default_factory=lambda: SHARED, description="one for all")


class Counting(HealthyLoss):
    """A loss that grows with the steps it has seen."""

    _seen: int = PrivateAttr(default=0)

    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return (1 + self._seen) * super().__call__(logits, y, at)

    def observe(self, batch: Any, terms: Any) -> None:
        self._seen += 1

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen = state["seen"]


@breaks("state-survives", "is missing")
class ForgetsItsState(Counting):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@breaks("state-survives", "not taken back")
class IgnoresState(Counting):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@breaks("state-survives", "weights_only")
class PickledState(Counting):
    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen, "like": SHARED}


@breaks("one-a-point", "shape ()")
class Averaged(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits, y).mean()


@breaks("one-a-point", "float64")
class DoubleLoss(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits, y).double()


@breaks("points-not-mixed", "in a batch")
class Relative(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        loss = super().__call__(logits, y)
        return loss - loss.detach().mean()


@breaks("points-not-mixed", "gradients at other points")
class MixedGradient(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        loss = super().__call__(logits, y)
        return loss + (loss.sum() - loss.sum().detach())


@breaks("finite-at-extremes", "with logits 1e4 at the label")
class LogOfSoftmax(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return -logits.softmax(1).log().gather(1, y.unsqueeze(1)).squeeze(1)


@breaks("finite-at-extremes", "gradient is not")
class RootAtZero(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits, y).sqrt()


@breaks("gradient-true", "the loss")
class Detached(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        loss = super().__call__(logits, y)
        return loss * loss.detach()

    def ascend(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits, y)


@breaks("gradient-true", "ascend")
class DetachedAscent(HealthyLoss):
    def ascend(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return self(logits, y) * logits.detach().square().sum(1)


@breaks("own-random-numbers", "used")
class GlobalNoise(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits + torch.rand_like(logits), y)


@breaks("own-random-numbers", "depends")
class OfTheGlobalSeed(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits, y) + torch.initial_seed()


@breaks("ascend-deterministic", "at.rng")
class Sampled(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        assert at.rng is not None
        return super().__call__(logits, y) * at.rng.uniform()


@breaks("ascend-misleads", "raises the true class")
class Downhill(HealthyLoss):
    def ascend(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return -self(logits, y)


@breaks("ascend-misleads", "no gradient")
class Hinge(HealthyLoss):
    def ascend(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return (self(logits, y) - 100).relu()


@breaks("soft-labels", "raises RuntimeError")
class HardOnly(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return -logits.log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)


@breaks("soft-labels", "made soft")
class SoftTwice(HealthyLoss):
    def __call__(self, logits: Tensor, y: Tensor, at: At = HERE) -> Tensor:
        return super().__call__(logits, y) * y.dim()
