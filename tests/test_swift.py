"""Swift: what it breaks, what it gives up, when it brings Square, and what it says of that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_models import affine, attacked, cnn, unboxed, wrong
from eval_parts import Linear, linear_images, run
from torch import Tensor, nn

from robustkit.attacks.square import Square
from robustkit.attacks.swift import WORTH, Climbs, MaskedSquare, Swift
from robustkit.threat import Norm, ThreatModel

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


class Around(nn.Module):
    """A model with something done to its images or its logits."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(self.before(x) if self.before else x)
        return self.after(logits) if self.after else logits


class Rounded(torch.autograd.Function):
    """Rounds to 16 levels, with a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class Cheated(torch.autograd.Function):
    """Does nothing, but turns the gradient round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


MASKED = {
    "zero": Rounded.apply,
    "turned": Cheated.apply,
    "none": lambda x: x.detach(),
}


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize(("norm", "beyond"), [("linf", 1.01), ("l2", 1.01), ("l1", 1.1)])
def test_everything_just_beyond_the_radius_is_broken_and_nothing_below(
    classes: int, norm: Norm, beyond: float
) -> None:
    model, x, y = affine(classes, 2, (1, 3, 3))
    x_adv, _ = attacked(Swift(), model, x, y, unboxed(norm, beyond * model.radius(norm)))
    assert wrong(model, x_adv, y).all()
    threat = unboxed(norm, 0.85 * model.radius(norm))
    x_adv, victim = attacked(Swift(), model, x, y, threat)
    assert not wrong(model, x_adv, y).any()
    assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()
    assert not victim.spread


def test_what_a_point_costs_falls_with_its_distance() -> None:
    """A linear margin at half of the radius is half of the clean one: given up at once."""
    model, x, y = affine(4, 2, (1, 3, 3))
    for share, searches in ((0.5, 0), (0.78, 1), (0.82, 2), (0.88, 3), (0.97, len(WORTH))):
        threat = unboxed("linf", share * model.radius("linf"))
        _, victim = attacked(Climbs(), model, x, y, threat)
        # The original, 51 looks away from its class, and 101 towards each other one.
        assert victim.forwards.tolist() == [1 + 51 + searches * 101] * 2
        assert torch.equal(victim.backwards, victim.forwards)


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_point_costs_at_most_is_known(norm: Norm) -> None:
    model, x, y = affine(4, 2, (1, 3, 3))
    threat = unboxed(norm, 0.999 * model.radius(norm))
    _, victim = attacked(Climbs(), model, x, y, threat)
    assert victim.backwards.tolist() == [Climbs().most(threat)] * 2


def test_points_wrong_from_the_start_cost_a_pass() -> None:
    model, x, y = affine(4, 6, (1, 3, 3))
    x_adv, victim = attacked(Swift(), model, x, 1 - y, unboxed("linf", 0.01))
    assert victim.forwards.tolist() == [1] * 6
    assert torch.equal(x_adv, x)


def test_a_points_result_does_not_depend_on_the_others() -> None:
    model, x, y = cnn()
    threat, ids = ThreatModel("linf", 0.03), torch.arange(100, 164)
    whole, victim = attacked(Swift(), model, x, y, threat, ids=ids)
    assert len(victim.forwards.unique()) == 3
    for rows in torch.arange(64).split(5):
        part, alone = attacked(Swift(), model, x[rows], y[rows], threat, ids=ids[rows])
        assert torch.allclose(part, whole[rows], atol=1e-6)
        assert torch.equal(alone.forwards, victim.forwards[rows])


def test_targeted_mode_reaches_the_target() -> None:
    model, x, y = cnn(3)
    target = (y[:6] + 1) % 3
    x_adv, _ = attacked(Swift(), model, x[:6], y[:6], unboxed("linf", 2.0), target=target)
    assert torch.equal(model(x_adv).argmax(1), target)


@pytest.mark.parametrize("factor", [1e-4, 1e3])
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_that_keep_their_promise_bring_no_square(norm: Norm, factor: float) -> None:
    """The scale of logits does not matter: saturated ones are searched as others are."""
    model, x, y = affine(4, 4, (1, 3, 3))
    scaled = Around(model, after=lambda logits: factor * logits)
    _, victim = attacked(MaskedSquare(), scaled, x, y, unboxed(norm, 0.9 * model.radius(norm)))
    assert victim.forwards.tolist() == victim.backwards.tolist() == [12] * 4
    x_adv, _ = attacked(Climbs(), scaled, x, y, unboxed(norm, 1.1 * model.radius(norm)))
    assert wrong(model, x_adv, y).all()


@pytest.mark.parametrize("mask", MASKED)
def test_a_masked_model_is_broken_as_by_square(mask: str) -> None:
    model, x, y = affine(3, 40, (1, 4, 4))
    masked = Around(model, before=MASKED[mask]).requires_grad_(False)
    threat = unboxed("linf", 2 * model.radius("linf"))
    y = masked(x).argmax(1)
    broken = {}
    for attack in (Climbs(), MaskedSquare(queries=300), Square(queries=300)):
        x_adv, _ = attacked(attack, masked, x, y, threat)
        broken[attack.name] = int(wrong(masked, x_adv, y).sum())
    assert broken["square"] > broken["swift-climbs"] + 10
    assert broken["swift-square"] > broken["square"] - 5


def test_the_record_says_what_was_given_up_and_that_square_was_left_out(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear(), n=60)
    (record,) = run(tmp_path, model, images, [Swift()], ThreatModel("linf", 0.005))
    climbs, square = record.parts
    left = climbs.attacked - climbs.broken
    assert climbs.broken > 0 and square.attacked == left > 0
    x = images.take(torch.arange(len(images))).float() / 255
    right = model(x).argmax(1) == images.labels
    share = 1 - 0.005 / model.radius(x, "linf")
    early = int((right & (share > WORTH[-1])).sum())
    assert record.remarks == (
        "swift: no standard protocol; its robust accuracy is an upper bound, and autoattack's may "
        "be lower",
        f"swift: {early} of {left} points that its climbs left robust were given up early, for "
        "they stayed far from the border",
        "swift: square was left out, for gradients look masked on no point",
    )


def test_the_record_of_a_masked_model_says_that_square_was_brought(tmp_path: Path) -> None:
    model, attack = Around(Linear(), before=Rounded.apply), Swift(queries=200)
    images = linear_images(Linear(), n=60)
    (record,) = run(tmp_path, model, images, [attack], ThreatModel("linf", 0.05))
    square = record.parts[1]
    said = record.remarks[2].removeprefix("swift: gradients look masked on ").split()
    assert said[1:3] == ["of", str(square.attacked)] and 0 < int(said[0]) <= square.attacked
    # A trial's own looks may break a point, too.
    assert 0 < int(record.remarks[2].split("broke ")[1].split(":")[0]) <= square.broken
    assert record.remarks[2].endswith(": believe autoattack more")
