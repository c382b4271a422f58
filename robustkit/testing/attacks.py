"""What attacks promise; asked on a linear model with known adversaries, and a small network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robustkit.interfaces import Attack
from robustkit.testing.bench import (
    RADIUS,
    RUNNER_UP,
    SIZES,
    conv_model,
    conv_points,
    ids_of,
    left_alone,
    linear_model,
    linear_points,
    nearest_classes,
    no_global_random_numbers,
    propose,
)
from robustkit.testing.core import REFUSED, Check, NotApplicableError, Subject, attempt, require
from robustkit.threat import NORMS, ThreatModel

LONG = 10_000
"""Calls given to a search whose points can all be broken, so that it ends by itself."""
OPEN = {"low": -math.inf, "high": math.inf}


def _threats(attack: Attack) -> Iterator[ThreatModel]:
    return (ThreatModel(norm, SIZES[norm]) for norm in attack.norms)  # type: ignore[arg-type]


def _radii(attack: Attack) -> list[tuple[str, float]]:
    """Give (norm, radius of the nearest adversary) of the norms that have sizes."""
    known = [(norm, RADIUS[norm]) for norm in attack.norms if norm in RADIUS]
    if not known:
        raise NotApplicableError("its perturbations have no size")
    return known


def _broken(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


def norms_known(subject: Subject) -> None:
    """`norms` names the norms that it works in, at least one."""
    norms = getattr(subject.component, "norms", ())
    require(norms and not isinstance(norms, str), "`norms` is not a tuple of names")
    for norm in norms:
        require(norm in NORMS, f"`norms` holds '{norm}'; known: {', '.join(NORMS)}")


def other_norms_refused(subject: Subject) -> None:
    """A norm that it does not declare is refused in one line."""
    attack: Attack = subject.make()
    x, y = linear_points()
    for norm in sorted(RADIUS.keys() - set(attack.norms)):
        threat = ThreatModel(norm, RADIUS[norm])  # type: ignore[arg-type]
        what = f"norm '{norm}', which `norms` does not hold,"
        found = attempt(what, propose, attack, linear_model(), x, y, threat)
        require(found is REFUSED, f"{what} is not refused")


def proposals_like_images(subject: Subject) -> None:
    """Proposals have the images' shape, type and device, and are finite; also for one point."""
    attack: Attack = subject.make()
    x, y = conv_points()
    for threat in _threats(attack):
        for n in (1, len(x)):
            x_adv, _ = propose(attack, conv_model(), x[:n], y[:n], threat)
            require(isinstance(x_adv, Tensor), f"{threat}: proposals are no tensor")
            require(x_adv.shape == x[:n].shape, f"{threat}: {tuple(x_adv.shape)} for {n} images")
            require(x_adv.dtype == x.dtype, f"{threat}: proposals are {x_adv.dtype}")
            require(x_adv.device == x.device, f"{threat}: proposals are on {x_adv.device}")
            require(not x_adv.requires_grad, f"{threat}: proposals carry a graph")
            require(x_adv.isfinite().all(), f"{threat}: some proposals are not finite")


def inside_ball(subject: Subject) -> None:
    """Proposals lie in the ball, up to rounding."""
    attack: Attack = subject.make()
    for model, (x, y) in ((linear_model(), linear_points()), (conv_model(), conv_points())):
        for threat in _threats(attack):
            if threat.norm != "none":
                x_adv, _ = propose(attack, model, x, y, threat)
                over = float((threat.size(x_adv - x) - threat.eps).max())
                require(over <= threat.tolerance, f"{threat}: a proposal is {over:.3g} outside")


def inside_box(subject: Subject) -> None:
    """Proposals lie in the box, up to rounding."""
    attack: Attack = subject.make()
    x, y = conv_points()
    for threat in _threats(attack):
        x_adv, _ = propose(attack, conv_model(), x, y, threat)
        over = max(float(threat.low - x_adv.min()), float(x_adv.max() - threat.high))
        require(over <= threat.tolerance, f"{threat}: a pixel is {over:.3g} outside [0, 1]")


def zero_eps(subject: Subject) -> None:
    """With eps = 0 the images come back."""
    attack: Attack = subject.make()
    x, y = conv_points()
    for norm in attack.norms:
        threat = ThreatModel(norm, 0.0)  # type: ignore[arg-type]
        if norm != "none":
            x_adv, _ = propose(attack, conv_model(), x, y, threat)
            moved = float((x_adv - x).abs().max())
            require(moved <= threat.tolerance, f"{norm} 0: a pixel moved by {moved:.3g}")


def inputs_left_alone(subject: Subject) -> None:
    """Images, labels and targets come back as they were, without gradients."""
    attack: Attack = subject.make()
    x, y = linear_points()
    given = {"x": x, "y": y, "target": nearest_classes(x, y)[:, 0]}
    before = {name: value.clone() for name, value in given.items()}

    def compare() -> None:
        for name, value in given.items():
            require(torch.equal(value, before[name]), f"{name} is changed in place")
        require(not x.requires_grad and x.grad is None, "x comes back with gradients")

    for threat in _threats(attack):
        propose(attack, linear_model(), x, y, threat)
        compare()
        attempt("a target", propose, attack, linear_model(), x, y, threat, target=given["target"])
        compare()


def model_left_alone(subject: Subject) -> None:
    """The model comes back as it was: parameters, gradients, mode, buffers."""
    attack: Attack = subject.make()
    x, y = conv_points()
    model = conv_model()
    for threat in _threats(attack):
        with left_alone(model):
            propose(attack, model, x, y, threat)


def no_global_random_state(subject: Subject) -> None:
    """Random numbers come from the rng given; the global ones are neither read nor changed."""
    attack: Attack = subject.make()
    x, y = conv_points()
    threat, model = next(_threats(attack)), conv_model()
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with no_global_random_numbers():
            found.append(propose(attack, model, x, y, threat)[0])
    require(torch.equal(*found), "proposals depend on torch's global seed")


def deterministic(subject: Subject) -> None:
    """The same points, seed and threat give the same proposals, also from a new instance."""
    x, y = conv_points()
    first: Attack = subject.make()
    threat = next(_threats(first))
    found = [propose(a, conv_model(), x, y, threat)[0] for a in (first, first, subject.make())]
    require(torch.equal(found[0], found[1]), "a second run proposes something else")
    require(torch.equal(found[0], found[2]), "a second instance proposes something else")


def independent_of_batch(subject: Subject) -> None:
    """A point's proposal is the same alone, in a batch, and in another order."""
    attack: Attack = subject.make()
    threat = next(_threats(attack))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for model, (x, y) in ((linear_model(), linear_points()), (conv_model(), conv_points())):
        ids = ids_of(len(x))
        together, _ = propose(attack, model, x, y, threat)
        for what, rows in (("in another order", order), *(("alone", i) for i in order.split(1))):
            x_adv, _ = propose(attack, model, x[rows], y[rows], threat, ids=ids[rows])
            # The verdict decides: float ties may send two equally good searches apart.
            far = float((x_adv - together[rows]).abs().max()) > 1e-3 * threat.eps
            verdicts = _broken(model, x_adv, y[rows]), _broken(model, together[rows], y[rows])
            margins = model(x_adv).detach(), model(together[rows]).detach()
            apart = far and not torch.allclose(*margins, rtol=1e-2, atol=1e-3)
            require(
                torch.equal(*verdicts) and not apart,
                f"a point's proposal is another one {what}; points must not mix",
            )


def passes_counted(subject: Subject) -> None:
    """Every pass goes through the victim, and `rows` names each point that it holds once."""
    attack: Attack = subject.make()
    x, y = conv_points()
    model, asked = conv_model(), 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    model.register_forward_hook(count)
    for threat in _threats(attack):
        asked = 0
        _, victim = propose(attack, model, x, y, threat)
        require(asked == victim.calls, f"{threat}: {asked - victim.calls} passes avoid the victim")
        counted = float(victim.forwards.sum())
        require(
            abs(counted - victim.points) < 1e-3 * max(victim.points, 1),
            f"{threat}: {victim.points} points were passed on, `rows` names {counted:.0f}",
        )


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
            found = int(_broken(model, x_adv, y).sum())
            require(found == len(x), f"{threat}: {found} of {len(x)} points are broken; all can be")


def known_radius_kept(subject: Subject) -> None:
    """Below the known radius of a linear model no point is broken."""
    attack: Attack = subject.make()
    x, y = linear_points()
    for norm, radius in _radii(attack):
        threat = ThreatModel(norm, 0.99 * radius)  # type: ignore[arg-type]
        x_adv, _ = propose(attack, linear_model(), x, y, threat)
        found = int(_broken(linear_model(), x_adv, y).sum())
        require(not found, f"{threat}: {found} points are broken; within this size none can be")


def smallest_found(subject: Subject) -> None:
    """A `minimal` attack takes eps = inf and finds sizes within a quarter of the known radius."""
    attack: Attack = subject.make()
    if not attack.minimal:
        raise NotApplicableError("it does not look for the smallest perturbation")
    x, y = linear_points()
    for norm, radius in _radii(attack):
        threat = ThreatModel(norm, math.inf)  # type: ignore[arg-type]
        x_adv, _ = propose(attack, linear_model(), x, y, threat, patience=LONG)
        require(_broken(linear_model(), x_adv, y).all(), f"{norm}: some points are not broken")
        worst = float(threat.size(x_adv - x).max()) / radius
        require(worst <= 1.25, f"{norm}: a perturbation is {worst:.3g} times the smallest")


CHECKS = Check.all(
    norms_known,
    other_norms_refused,
    proposals_like_images,
    inside_ball,
    inside_box,
    zero_eps,
    inputs_left_alone,
    model_left_alone,
    no_global_random_state,
    deterministic,
    independent_of_batch,
    passes_counted,
    targets_respected,
    known_adversaries_found,
    known_radius_kept,
    smallest_found,
)
