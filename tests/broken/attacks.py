"""Broken attacks."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from broken import breaks
from robustkit import Attack, BadValueError, Rng, ThreatModel, Victim, per_point
from robustkit.losses.margin import margin


class HealthyAttack(Attack):
    """Some steps of eps up the margin; the smallest step on a linear model where eps is inf."""

    name = "healthy"
    minimal = True
    steps: int = Field(default=4, ge=1, description="steps")

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        self.check_norm(threat)
        if math.isinf(threat.eps):
            value, gradient = self.ascent(victim, x, y, None)
            size = -1.01 * value / threat.dual_size(gradient)
            return x + per_point(size, x) * threat.steepest(gradient)
        x_adv = self.start(x, threat, rng)
        for _ in range(self.steps):
            _, gradient = self.ascent(victim, x_adv, y, target)
            x_adv = self.project(x_adv + threat.eps * threat.steepest(gradient), x, threat)
        return x_adv

    def check_norm(self, threat: ThreatModel) -> None:
        if threat.norm not in self.norms:
            raise BadValueError(f"attack 'healthy' does not work in norm '{threat.norm}'")

    def start(self, x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        return threat.random_start(x, rng)

    def project(self, x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        return threat.project(x_adv, x)

    def ask(self, victim: Victim, x: Tensor) -> Tensor:
        return victim(x, torch.arange(len(x)))

    def ascent(
        self, victim: Victim, x: Tensor, y: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        logits = self.ask(victim, x)
        value = margin(logits, y) if target is None else -margin(logits, target)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@breaks("norms-known", "l7")
class UnknownNorm(HealthyAttack):
    norms = ("linf", "l2", "l7")


@breaks("norms-known", "tuple")
class NoNorms(HealthyAttack):
    norms = ()


@breaks("other-norms-refused", "not refused")
class AnyNorm(HealthyAttack):
    def check_norm(self, threat: ThreatModel) -> None:
        pass


class After(HealthyAttack):
    """Healthy; its children change what is returned."""

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        x_adv = super().perturb(victim, x, y, threat, rng, target)
        return self.after(x_adv, x, y, threat, victim)

    def after(
        self, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, victim: Victim
    ) -> Tensor:
        return x_adv


@breaks("proposals-like-images", "float64")
class Doubles(After):
    def after(self, x_adv, x, y, threat, victim):
        return x_adv.double()


@breaks("proposals-like-images", "for 6 images")
class OneTooFew(After):
    def after(self, x_adv, x, y, threat, victim):
        return x_adv[: max(1, len(x) - 1)]


@breaks("proposals-like-images", "finite")
class NotFinite(After):
    def after(self, x_adv, x, y, threat, victim):
        return x_adv.masked_fill(x_adv > x_adv.mean(), torch.nan)


@breaks("proposals-like-images", "graph")
class WithGraph(After):
    def after(self, x_adv, x, y, threat, victim):
        return x_adv.requires_grad_()


@breaks("inside-ball", "outside")
class TwiceEps(After):
    def after(self, x_adv, x, y, threat, victim):
        return threat.clamp(x + 2 * (x_adv - x))


@breaks("inside-box", "outside")
class NoBox(HealthyAttack):
    def project(self, x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        return ThreatModel(threat.norm, threat.eps, -math.inf, math.inf).project(x_adv, x)


@breaks("zero-eps", "moved")
class AtLeastALittle(After):
    def after(self, x_adv, x, y, threat, victim):
        return threat.clamp(x_adv + 1e-3)


@breaks("inputs-left-alone", "x is changed")
class InPlace(After):
    def after(self, x_adv, x, y, threat, victim):
        return x.copy_(x_adv)


@breaks("inputs-left-alone", "y is changed")
class LabelsInPlace(After):
    def after(self, x_adv, x, y, threat, victim):
        y.add_(1)
        return x_adv


@breaks("inputs-left-alone", "gradients")
class GradientsAtX(After):
    def after(self, x_adv, x, y, threat, victim):
        x.requires_grad_()
        return x_adv


@breaks("model-left-alone", "training mode")
class ToTraining(After):
    def after(self, x_adv, x, y, threat, victim):
        victim.model.train()
        return x_adv


@breaks("model-left-alone", "parameters")
class ShiftsWeights(After):
    def after(self, x_adv, x, y, threat, victim):
        next(victim.model.parameters()).data.add_(1e-3)
        return x_adv


@breaks("model-left-alone", "buffers")
class ShiftsStatistics(After):
    def after(self, x_adv, x, y, threat, victim):
        victim.model.features[1].running_mean.add_(1e-3)
        return x_adv


@breaks("model-left-alone", "gradients")
class LeavesGradients(After):
    def after(self, x_adv, x, y, threat, victim):
        parameter = next(victim.model.parameters())
        parameter.grad = torch.zeros_like(parameter)
        return x_adv


@breaks("no-global-random-state", "used")
class GlobalStart(HealthyAttack):
    def start(self, x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        return threat.project(x + threat.eps * torch.rand_like(x), x)


@breaks("no-global-random-state", "used")
class Reseeds(HealthyAttack):
    def start(self, x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        torch.manual_seed(3)
        return threat.random_start(x, rng)


@breaks("no-global-random-state", "depend")
class ReadsTheSeed(HealthyAttack):
    def start(self, x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        return threat.random_start(x, rng, at=torch.initial_seed())

    steps: int = Field(default=1, ge=1, description="so few that the start is seen")

    def project(self, x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        return x + 0.1 * (threat.project(x_adv, x) - x)


@breaks("deterministic", "second run")
class Counts(After):
    _calls: int = PrivateAttr(default=0)

    def after(self, x_adv, x, y, threat, victim):
        self._calls += 1
        return x + (x_adv - x) / self._calls


@breaks("independent-of-batch", "alone")
class MeanGradient(HealthyAttack):
    def ascent(self, victim, x, y, target):
        value, gradient = super().ascent(victim, x, y, target)
        return value, gradient.mean(0, keepdim=True).expand_as(gradient)


@breaks("independent-of-batch", "order")
class ByPlace(After):
    def after(self, x_adv, x, y, threat, victim):
        share = 1 / (1 + torch.arange(len(x)))
        return x + per_point(share, x) * (x_adv - x)


@breaks("passes-counted", "avoid")
class AroundTheVictim(HealthyAttack):
    def ask(self, victim, x):
        return victim.model(x)


@breaks("passes-counted", "names")
class WrongRows(HealthyAttack):
    def ask(self, victim, x):
        return victim(x, torch.zeros(len(x), dtype=torch.long))


@breaks("targets-respected", "the target is found for")
class IgnoresTarget(HealthyAttack):
    def ascent(self, victim, x, y, target):
        return super().ascent(victim, x, y, None)


@breaks("targets-respected", "another class")
class WeaklyIgnoresTarget(HealthyAttack):
    weak = True

    def ascent(self, victim, x, y, target):
        return super().ascent(victim, x, y, None)


@breaks("known-adversaries-found", "0 of 6")
class DoesNothing(After):
    def after(self, x_adv, x, y, threat, victim):
        return x


@breaks("known-adversaries-found", "box")
class OnlyInTheBox(After):
    def after(self, x_adv, x, y, threat, victim):
        return x if math.isinf(threat.low) else x_adv


@breaks("known-radius-kept", "broken")
class HalfAsMuchAgain(After):
    def after(self, x_adv, x, y, threat, victim):
        return x + 1.5 * (x_adv - x)


@breaks("smallest-found", "times the smallest")
class TwiceTheSmallest(After):
    def after(self, x_adv, x, y, threat, victim):
        return x + 2 * (x_adv - x)


@breaks("smallest-found", "not broken")
class Halfway(After):
    def after(self, x_adv, x, y, threat, victim):
        return x + 0.5 * (x_adv - x)
