"""What attacks find, on a linear model whose nearest adversaries are known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustkit.interfaces import Attack
from robustkit.testing.bench import (
    RADIUS,
    RUNNER_UP,
    linear_model,
    linear_points,
    nearest_classes,
    propose,
)
from robustkit.testing.core import REFUSED, Check, NotApplicableError, Subject, attempt, require
from robustkit.threat import ThreatModel

LONG = 10_000
"""Calls given to a search whose points can all be broken, so that it ends by itself."""
OPEN = {"low": -math.inf, "high": math.inf}


def _radii(attack: Attack) -> list[tuple[str, float]]:
    """Give (norm, radius of the nearest adversary) of the norms that have sizes."""
    known = [(norm, RADIUS[norm]) for norm in attack.norms if norm in RADIUS]
    if not known:
        raise NotApplicableError("its perturbations have no size")
    return known


def broken(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Say where the prediction is wrong: (N,) of bool."""
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


def targets_respected(subject: Subject) -> None:
    """With `target`, that class is what is found; an attack without targets refuses in one line."""
    attack: Attack = subject.make()
    x, y = linear_points()
    model, target = linear_model(), nearest_classes(x, y)[:, 1]
    for norm, radius in _radii(attack):
        threat = ThreatModel(norm, 3 * radius * RUNNER_UP)  # type: ignore[arg-type]
        options = {"target": target, "patience": LONG}
        found = attempt("a target", propose, attack, model, x, y, threat, **options)
        if found is REFUSED:
            raise NotApplicableError("it takes no target")
        predicted = model(found[0]).argmax(1)
        wrong = (predicted != y) & (predicted != target)
        if attack.weak:
            require(not wrong.any(), f"{threat}: another class than the target is found")
        else:
            hit = int((predicted == target).sum())
            require(hit == len(x), f"{threat}: the target is found for {hit} of {len(x)} points")


def known_adversaries_found(subject: Subject) -> None:
    """Three times the known radius breaks every point of a linear model; `weak` attacks may not."""
    attack: Attack = subject.make()
    if attack.weak:
        raise NotApplicableError("it is declared weak")
    x, y = linear_points()
    model = linear_model()
    for norm, radius in _radii(attack):
        for box in (OPEN, {}):
            threat = ThreatModel(norm, 3 * radius, **box)  # type: ignore[arg-type]
            x_adv, _ = propose(attack, model, x, y, threat, patience=LONG)
            found = int(broken(model, x_adv, y).sum())
            require(found == len(x), f"{threat}: {found} of {len(x)} points are broken; all can be")


def known_radius_kept(subject: Subject) -> None:
    """Below the known radius of a linear model no point is broken."""
    attack: Attack = subject.make()
    x, y = linear_points()
    for norm, radius in _radii(attack):
        threat = ThreatModel(norm, 0.99 * radius)  # type: ignore[arg-type]
        x_adv, _ = propose(attack, linear_model(), x, y, threat)
        found = int(broken(linear_model(), x_adv, y).sum())
        require(not found, f"{threat}: {found} points are broken; within this size none can be")


def smallest_found(subject: Subject) -> None:
    """A `minimal` attack takes eps = inf and breaks every point of a linear model.

    Unless it is `weak`, it does so within a quarter of the known radius.
    """
    attack: Attack = subject.make()
    if not attack.minimal:
        raise NotApplicableError("it does not look for the smallest perturbation")
    x, y = linear_points()
    for norm, radius in _radii(attack):
        threat = ThreatModel(norm, math.inf)  # type: ignore[arg-type]
        x_adv, _ = propose(attack, linear_model(), x, y, threat, patience=LONG)
        require(broken(linear_model(), x_adv, y).all(), f"{norm}: some points are not broken")
        worst = float(threat.size(x_adv - x).max()) / radius
        require(
            worst <= 1.25 or attack.weak,
            f"{norm}: a perturbation is {worst:.3g} times the smallest",
        )


CHECKS = Check.all(
    targets_respected,
    known_adversaries_found,
    known_radius_kept,
    smallest_found,
)
