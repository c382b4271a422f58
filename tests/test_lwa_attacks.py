"""The attacks of learning with adversary, on models whose softmax is known in closed form."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from robustkit_plugins.learning_with_adversary import attacks
from robustkit_plugins.learning_with_adversary.attacks import (
    AdvAlpha,
    AdvLoss,
    AdvLossSign,
    Linearised,
    least,
)
from robustkit_plugins.learning_with_adversary.softmax import log_odds_weights, rival_weights
from torch import Tensor, nn

from robustkit import BadValueError, ThreatModel
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim

OPEN = {"low": -math.inf, "high": math.inf}
NORMS = ("linf", "l2", "l1")
PIXELS, CLASSES = 12, 5


def threat(norm: str, eps: float, **box: float) -> ThreatModel:
    return ThreatModel(norm, eps, **{**OPEN, **box})  # type: ignore[arg-type]


def linear(gap: float = 0.0, classes: int = CLASSES) -> tuple[nn.Sequential, Tensor]:
    """A linear softmax model in float64, and a point whose class 0 leads class 1 by `gap`."""
    torch.manual_seed(7)
    layer = nn.Linear(PIXELS, classes).double()
    model = nn.Sequential(nn.Flatten(), layer)
    x = torch.rand(1, 1, 3, 4, dtype=torch.float64)
    others = torch.linspace(0, -2, classes - 1, dtype=torch.float64)
    with torch.no_grad():
        layer.bias += torch.cat((torch.tensor([gap]), others)) - model(x)[0]
    return model, x


def propose(
    attack: Linearised, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel
) -> tuple[Tensor, CountingVictim]:
    victim = CountingVictim(model, len(x), x.device, drop=False)
    return attack.perturb(victim, x, y, threat, PointRng(0, attack.name, y)), victim


def slopes_by_hand(model: nn.Sequential, x: Tensor) -> tuple[list[Decimal], list[list[Decimal]]]:
    """Give alpha and T = d alpha / d x, of 200 digits."""
    logits = [Decimal(z) for z in model(x)[0].tolist()]
    rows = [[Decimal(w) for w in row] for row in model[1].weight.tolist()]
    powers = [z.exp() for z in logits]
    alpha = [p / sum(powers) for p in powers]
    mean = [sum(a * row[i] for a, row in zip(alpha, rows, strict=True)) for i in range(PIXELS)]
    slopes = [
        [a * (w - m) for w, m in zip(row, mean, strict=True)]
        for a, row in zip(alpha, rows, strict=True)
    ]
    return alpha, slopes


def unit(values: list[Decimal]) -> Tensor:
    length = sum(v * v for v in values).sqrt()
    return torch.tensor([float(v / length) for v in values], dtype=torch.float64)


@pytest.mark.parametrize("gap", [0.5, 5, 20, 100, 2000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_are_right_however_sure_the_model_is(gap: float, dtype: torch.dtype) -> None:
    """Against 200-digit arithmetic: at a gap of 20 float32's softmax is 1, at 100 its slope 0."""
    model, x = linear(gap)
    with localcontext() as context:
        context.prec = 2000 if gap > 1000 else 200
        alpha, slopes = slopes_by_hand(model, x)
        down = unit([-v for v in slopes[0]])
        apart = [[a - b for a, b in zip(row, slopes[0], strict=True)] for row in slopes]
        sizes = [
            (alpha[0] - a) / sum(v * v for v in d).sqrt()
            for a, d in zip(alpha[1:], apart[1:], strict=True)
        ]
        nearest = unit(apart[1 + sizes.index(min(sizes))])
    model, x, y = model.to(dtype), x.to(dtype), torch.tensor([0])
    for attack, right in ((AdvLoss(), down), (AdvAlpha(), nearest)):
        x_adv, _ = propose(attack, model, x, y, threat("l2", 1.0))
        assert torch.allclose((x_adv - x).flatten().double(), right, atol=3e-6)


@pytest.mark.parametrize("gap", [20, 100])
def test_float32_alone_would_not_do(gap: float) -> None:
    """What the weights in float64 are there for: autograd through a float32 softmax goes astray."""
    model, x = linear(gap)
    right, _ = propose(AdvLoss(), model, x, torch.tensor([0]), threat("l2", 1.0))
    plain = x.float().requires_grad_()
    model.float()(plain).softmax(1)[0, 0].backward()
    assert plain.grad is not None
    slope = -plain.grad / plain.grad.norm().clamp(min=1e-30)
    assert (slope.double() - (right - x)).abs().max() > 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_each_least_perturbation_is_the_closed_form(norm: str) -> None:
    """Proposition 2.1, for every rival; and 2.2: the smallest one is what changes the prediction."""
    model, x = linear(1.5)
    x.requires_grad_()
    logits, y = model(x), torch.tensor([0])
    rivals = torch.arange(1, CLASSES).unsqueeze(0)
    weights, lead = rival_weights(logits.detach(), y, rivals)
    alpha = logits.softmax(1)[0]
    jacobian = torch.stack([torch.autograd.grad(a, x, retain_graph=True)[0][0] for a in alpha])
    apart = (jacobian - jacobian[0])[1:]
    rest = 1 - alpha[0]
    ours = threat(norm, math.inf)
    found = []
    for k in range(CLASSES - 1):
        slope = torch.autograd.grad(logits, x, weights[k], retain_graph=True)[0]
        assert torch.allclose(rest * slope[0], apart[k], atol=1e-12)
        assert torch.allclose(lead[k], alpha[k + 1] - alpha[0])
        # The weights, and so the slope, are divided by 1 - alpha_y.
        size = least(lead[k], slope, ours) / rest
        found.append((size, size * ours.steepest(slope)[0]))
        gap, flat = alpha[0] - alpha[k + 1], apart[k].flatten()
        closed = {
            "l2": gap / flat.norm() ** 2 * flat,
            "linf": gap / flat.abs().sum() * flat.sign(),
            "l1": torch.zeros(PIXELS).double(),
        }
        top = flat.abs().argmax()
        closed["l1"][top] = gap / flat.abs().max() * flat.sign()[top]
        assert torch.allclose(found[k][1].flatten(), closed[norm].detach(), atol=1e-12)
    size, r = min(found, key=lambda pair: float(pair[0].detach()))

    def predicted(step: Tensor) -> int:
        """Of the linearised softmax."""
        return int((alpha + jacobian.flatten(1) @ step.flatten()).argmax())

    assert predicted(1.0001 * r) != 0
    assert predicted(0.9999 * r) == 0
    # And the attack goes that way.
    x_adv, _ = propose(AdvAlpha(), model, x.detach(), y, threat(norm, float(size.detach())))
    assert torch.allclose(x_adv - x, r, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_the_label_loses_the_most_that_a_linear_softmax_allows(norm: str) -> None:
    """`-c u` of section 3.1.1, which lowers alpha_y; the sign attack is its linf direction."""
    model, x = linear(1.0)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model(x).softmax(1)[0, 0], x)
    ours, y = threat(norm, 0.3), torch.tensor([0])
    x_adv, _ = propose(AdvLoss(), model, x.detach(), y, ours)
    assert torch.allclose(x_adv - x, -0.3 * ours.steepest(slope), atol=1e-9)
    x_adv, _ = propose(AdvLossSign(), model, x.detach(), y, ours)
    length = {"linf": 1.0, "l2": PIXELS**0.5, "l1": PIXELS}[norm]
    assert torch.allclose(x_adv - x, -0.3 * slope.sign() / length, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [AdvLoss(), AdvAlpha(), AdvLossSign()])
def test_the_smallest_size_is_the_distance_to_the_border(attack: Linearised, norm: str) -> None:
    """Two classes on a line: the sign's direction takes its own, longer way to the border."""
    model, x = linear(3.0, classes=2)
    w = (model[1].weight[0] - model[1].weight[1]).detach()
    dual = {"linf": w.abs().sum(), "l2": w.norm(), "l1": w.abs().max()}[norm]
    if isinstance(attack, AdvLossSign):
        dual = w.abs().sum() / {"linf": 1.0, "l2": PIXELS**0.5, "l1": PIXELS}[norm]
    ours = threat(norm, math.inf)
    x_adv, victim = propose(attack, model, x, torch.tensor([0]), ours)
    assert model(x_adv).argmax() == 1
    assert ours.size(x_adv - x).item() == pytest.approx(3.0 / dual.item(), rel=1e-3)
    assert victim.forwards.item() <= 1 + attacks.DOUBLINGS + attack.halvings


def test_where_nothing_misleads_the_image_stays() -> None:
    model, x = linear(50.0, classes=2)
    x = x.clamp(0.4, 0.6)
    x_adv, _ = propose(
        AdvLoss(), model, x, torch.tensor([0]), threat("l2", math.inf, low=0.0, high=1.0)
    )
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_that_is_wrong_already_is_pushed_down_its_own_slope(norm: str) -> None:
    model, x = linear(2.0)
    x, y = x.expand(2, 1, 3, 4), torch.tensor([0, 3])
    alpha, _ = propose(AdvAlpha(), model, x, y, threat(norm, 0.5))
    down, _ = propose(AdvLoss(), model, x, y, threat(norm, 0.5))
    assert torch.allclose(alpha[1], down[1])


@pytest.mark.parametrize("chunk", [2048, 3])
def test_all_rivals_cost_one_forward_and_a_backward_each(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(attacks, "ROWS", chunk)
    model, x = linear(2.0)
    x, y = x.expand(3, 1, 3, 4) + torch.rand(3, 1, 3, 4), torch.zeros(3, dtype=torch.int64)
    x_adv, victim = propose(AdvAlpha(), model, x, y, threat("l2", 0.5))
    assert victim.forwards.tolist() == [1, 1, 1]
    assert victim.backwards.tolist() == [CLASSES - 1] * 3
    for i in range(3):
        alone, _ = propose(AdvAlpha(), model, x[i : i + 1], y[:1], threat("l2", 0.5))
        assert torch.allclose(x_adv[i], alone[0])
    _, victim = propose(AdvLoss(), model, x, y, threat("l2", 0.5))
    assert victim.backwards.tolist() == [1, 1, 1]


def test_the_box_is_filled_or_off() -> None:
    """On MNIST most pixels are 0: a clipped step would lose half of its size there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.zeros(5, 1, 8, 8), torch.arange(5)
    for attack in (AdvLoss(), AdvLossSign(), AdvAlpha()):
        for norm, eps in (("linf", 0.2), ("l2", 1.5), ("l1", 6.0)):
            boxed, free = threat(norm, eps, low=0.0, high=1.0), threat(norm, eps)
            inside, _ = propose(attack, model, x, y, boxed)
            outside, _ = propose(attack, model, x, y, free)
            assert torch.allclose(boxed.size(inside - x), torch.full((5,), eps), rtol=1e-4)
            assert torch.allclose(free.size(outside - x), torch.full((5,), eps), rtol=1e-4)
            assert inside.min() >= 0
            assert norm == "l1" or outside.min() < 0


def test_a_target_is_raised_or_refused() -> None:
    model, x = linear(2.0)
    victim = CountingVictim(model, 1, x.device, drop=False)
    rng, target = PointRng(0, "", torch.tensor([0])), torch.tensor([3])
    y = torch.tensor([0])
    x_adv = AdvLoss().perturb(victim, x, y, threat("l2", 0.1), rng, target)
    assert model(x_adv).softmax(1)[0, 3] > model(x).softmax(1)[0, 3]
    with pytest.raises(BadValueError, match="adv-alpha' takes no target"):
        AdvAlpha().perturb(victim, x, y, threat("l2", 0.1), rng, target)


def test_log_odds_weigh_by_the_softmax_of_the_others() -> None:
    logits = torch.tensor([[3.0, 1.0, 1.0 + math.log(3.0)]])
    assert log_odds_weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx(
        [1, -0.25, -0.75]
    )
