"""Attacks that look for the smallest perturbation, against distances in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from attack_models import attacked, unboxed, wrong
from torch import Tensor, nn
from torch.nn import functional as F

from robustkit.attacks.ddn import DDN
from robustkit.attacks.deepfool import DeepFool
from robustkit.attacks.fab import FAB, FABTargeted
from robustkit.attacks.fmn import FMN
from robustkit.interfaces import Attack
from robustkit.threat import Norm, ThreatModel

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
CLOSE: list[tuple[Attack, float]] = [
    (DeepFool(), 1.03),
    (DDN(), 1.03),
    (FMN(), 1.02),
    (FAB(), 1.02),
    (FABTargeted(), 1.02),
]
"""Attacks, and how far beyond the nearest adversary of a linear model they may end."""
CASES = [(a, most, norm) for a, most in CLOSE for norm in NORMS if norm in a.norms]


class Plane(nn.Module):
    """Two classes, parted by the plane through the middle of the box."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.randn(36, generator=torch.Generator().manual_seed(0)).double()

    def forward(self, x: Tensor) -> Tensor:
        value = (x.flatten(1) - 0.5) @ self.w
        return torch.stack((value, -value), 1)


def points() -> tuple[Tensor, Tensor]:
    """Give points of which a third of the pixels lie on walls, and the labels that are right.

    None is so near the plane that DDN's radius, from 1 by steps of 5 %, would not get there.
    """
    x = torch.rand((32, 1, 6, 6), generator=torch.Generator().manual_seed(1)).double()
    x = (1.6 * x - 0.3).clamp(0, 1)
    x = x[Plane()(x).abs().amax(1) > 0.5][:12]
    return x, Plane()(x).argmax(1)


def nearest(model: Plane, x: Tensor, threat: ThreatModel) -> list[float]:
    """Give the distance of each point from the plane, in the box: by bisection of the multiplier.

    In linf every pixel moves by min(t, room), in l2 by min(t * slope, room), in l1 those whose
    slope is largest go to their walls.
    """
    found = []
    for point in x.flatten(1):
        value = float((point - 0.5) @ model.w)
        rising = (model.w > 0) == (value < 0)
        room = torch.where(rising, threat.high - point, point - threat.low).clamp(max=1e9)
        slope = model.w.abs()
        moves: dict[str, Callable[[float], Tensor]] = {
            "linf": lambda t, room=room: room.clamp(max=t),  # type: ignore[misc]
            "l2": lambda t, room=room, slope=slope: room.minimum(t * slope),  # type: ignore[misc]
        }
        if threat.norm == "l1":
            found.append(_greedy(slope, room, abs(value)))
            continue
        low, high = 0.0, 1e3
        for _ in range(100):
            t = (low + high) / 2
            short = float(slope @ moves[threat.norm](t)) < abs(value)
            low, high = (t, high) if short else (low, t)
        found.append(float(threat.size(moves[threat.norm](high).unsqueeze(0))))
    return found


def _greedy(slope: Tensor, room: Tensor, value: float) -> float:
    spent = 0.0
    for i in slope.argsort(descending=True).tolist():
        step = min(float(room[i]), value / float(slope[i]))
        spent, value = spent + step, value - step * float(slope[i])
    return spent


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize(("attack", "most", "norm"), CASES)
def test_the_nearest_adversary_of_a_linear_model_is_found(
    attack: Attack, most: float, norm: Norm, boxed: bool
) -> None:
    model, (x, y) = Plane(), points()
    threat = ThreatModel(norm, math.inf) if boxed else unboxed(norm, math.inf)
    x_adv, _ = attacked(attack, model, x, y, threat, drop=False)
    assert wrong(model, x_adv, y).all()
    ratio = threat.size(x_adv - x) / torch.tensor(nearest(model, x, threat))
    assert (ratio >= 1 - 1e-9).all()
    assert (ratio <= most).all(), ratio


@pytest.mark.parametrize(("attack", "most", "norm"), CASES)
def test_with_an_eps_what_lies_within_is_found_and_nothing_else(
    attack: Attack, most: float, norm: Norm
) -> None:
    model, (x, y) = Plane(), points()
    distance = torch.tensor(nearest(model, x, ThreatModel(norm, math.inf)))
    threat = ThreatModel(norm, float(distance.median()) * most)
    x_adv, _ = attacked(attack, model, x, y, threat)
    assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()
    found = wrong(model, x_adv, y)
    assert found[distance * most <= threat.eps].all()
    assert not found[distance > threat.eps].any()
    assert torch.equal(x_adv[~found], x[~found])


def test_deepfool_takes_one_step_on_a_linear_model() -> None:
    model, (x, y) = Plane(), points()
    _, victim = attacked(DeepFool(), model, x, y, unboxed("l2", math.inf), drop=False)
    # The original, its gradient, and the point beyond the border.
    assert (victim.forwards == 3).all()
    assert (victim.backwards == 1).all()


def test_deepfool_chooses_the_nearest_of_several_borders() -> None:
    """Class 1 has the larger logit, class 2 the nearer border."""
    w = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([0.0, -0.1, -0.6], dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3).double())
    model[1].weight.data, model[1].bias.data = w, b
    x = torch.zeros(1, 1, 1, 2).double()
    x_adv, _ = attacked(DeepFool(overshoot=0.01), model, x, torch.tensor([0]), unboxed("l2", 9))
    assert torch.allclose(x_adv.flatten(), torch.tensor([0.0, 0.6061]).double(), atol=1e-6)


class Steep(nn.Module):
    """A model so sure of one class that the gradient of cross-entropy underflows."""

    def forward(self, x: Tensor) -> Tensor:
        value = 4000 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack((value, -value), 1)


def test_ddn_gets_away_from_where_the_loss_is_flat() -> None:
    x = torch.full((8, 1, 4, 4), 0.55)
    y = torch.zeros(8, dtype=torch.int64)
    assert F.cross_entropy(Steep()(x), y) == 0
    x_adv, _ = attacked(DDN(), Steep(), x, y, ThreatModel("l2", math.inf), drop=False)
    assert wrong(Steep(), x_adv, y).all()


def test_fmn_reaches_beyond_walls_that_hide_the_border() -> None:
    """Where pixels meet walls the border is farther than it looks; one of these points got stuck."""
    generator = torch.Generator().manual_seed(0)
    torch.randn(36, generator=generator)
    x = torch.rand((16, 1, 6, 6), generator=generator).double().mul(1.6).sub(0.3).clamp(0, 1)
    model, y = Plane(), Plane()(x).argmax(1)
    x_adv, _ = attacked(FMN(), model, x, y, ThreatModel("l2", math.inf), drop=False)
    assert wrong(model, x_adv, y).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_ball_of_each_points_own_size(norm: Norm) -> None:
    x = torch.rand((4, 1, 3, 3), generator=torch.Generator().manual_seed(2))
    away = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    eps = torch.tensor([0.0, 0.1, 0.5, 50.0])
    together = ThreatModel(norm, math.inf).project(away, x, eps)
    for i, size in enumerate(eps.tolist()):
        alone = ThreatModel(norm, size).project(away[i : i + 1], x[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)
