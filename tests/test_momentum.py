"""The momentum family: its update rules, step by step."""

from __future__ import annotations

import pytest
import torch
from attack_models import Recorder, affine, attacked, cnn, wrong
from torch import Tensor, nn

from robustkit.attacks.momentum import DIFGSM, MIFGSM, NIFGSM, TIFGSM, VMIFGSM, smoothed
from robustkit.catalog import build
from robustkit.engine.rng import PointRng
from robustkit.errors import RobustkitError
from robustkit.threat import ThreatModel

LINF = ThreatModel("linf", 0.2)


def slope(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Give the gradient of the cross-entropy, scaled to a mean slope of 1."""
    x = x.detach().requires_grad_()
    loss = nn.functional.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True)


def by_hand(model: nn.Module, x: Tensor, y: Tensor, decay: float, ahead: bool) -> list[Tensor]:
    """Give the points at which mi-fgsm or ni-fgsm looks in 4 steps, and the last one."""
    x_adv, momentum, looks = x, torch.zeros_like(x), []
    for _ in range(4):
        looks.append(x_adv + 0.05 * decay * momentum if ahead else x_adv)
        momentum = decay * momentum + slope(model, looks[-1], y)
        step = x_adv + 0.05 * momentum.sign()
        x_adv = step.clamp(min=x - 0.2, max=x + 0.2).clamp(0, 1)
    return [*looks, x_adv]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("decay", [1.0, 0.5, 0.0])
def test_the_steps_are_those_of_the_papers(decay: float, ahead: bool) -> None:
    model, x, y = cnn()
    recorder = Recorder(model)
    attack = NIFGSM(steps=4, decay=decay) if ahead else MIFGSM(steps=4, decay=decay)
    x_adv, _ = attacked(attack, recorder, x, y, LINF, drop=False)
    *looks, last = by_hand(model, x, y, decay, ahead)
    for asked, look in zip(recorder.asked, looks, strict=True):
        assert torch.allclose(asked, look)
    assert torch.allclose(x_adv, last)


def test_momentum_goes_on_where_the_gradient_turns() -> None:
    """A loss with a ridge: without momentum the steps turn at once, with it they go on."""

    class Ridge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = -(x.flatten(1).mean(1) - 0.52).abs()
            return torch.stack((-value, value), 1)

    x, y = torch.full((8, 1, 2, 2), 0.45), torch.zeros(8, dtype=torch.int64)
    threat = ThreatModel("linf", 0.25)
    plain, _ = attacked(MIFGSM(steps=5, decay=0.0), Ridge(), x, y, threat, drop=False)
    kept, _ = attacked(MIFGSM(steps=5, decay=1.0), Ridge(), x, y, threat, drop=False)
    assert torch.allclose(plain, torch.full_like(x, 0.50))
    assert torch.allclose(kept, torch.full_like(x, 0.55))


def test_shrunk_images_lie_on_black_and_are_of_every_size() -> None:
    x = torch.ones(2000, 1, 20, 20)
    attack = DIFGSM(diversity=0.5, smallest=0.8)
    shown = attack._diverse(x, PointRng(0, "di-fgsm", torch.arange(2000)), 0)
    side = shown.sum((1, 2, 3)).sqrt()
    assert ((side > 15.9) & (side < 20.1)).all()
    whole = side > 20 - 1e-3
    assert whole.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.allclose(shown[whole], x[whole], atol=1e-5)
    assert side[~whole].mean().item() == pytest.approx(18, abs=0.2)
    corners = shown[~whole][:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).any(0).all()  # they lie anywhere, and each corner is black at times
    assert shown.min() >= 0 and shown.max() <= 1 + 1e-5


def test_a_shrunk_image_is_the_image() -> None:
    """A ramp stays a ramp, steeper by as much as it is shrunk."""
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 40, 40).contiguous()
    attack = DIFGSM(diversity=1.0, smallest=0.5)
    shown = attack._diverse(ramp, PointRng(1, "di-fgsm", torch.arange(1)), 0)
    row = shown[0, 0, 20]
    inside = (row > 0.2) & (row < 0.8)
    steps = row[inside].diff()
    assert torch.allclose(steps, steps.mean().expand_as(steps), atol=1e-4)
    assert 1 <= steps.mean() * 39 <= 2


@pytest.mark.parametrize(("down", "across"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_a_shrunk_image_reaches_each_corner(down: float, across: float) -> None:
    """White, half as large: the draws of its place lead it to the very edges."""

    class Drawn(PointRng):
        def uniform(self, shape: object, at: object = ()) -> Tensor:
            return torch.tensor([[0.0, 0.0, down, across]])

    shown = DIFGSM(diversity=1.0, smallest=0.5)._diverse(
        torch.ones(1, 1, 8, 8), Drawn(0, "di-fgsm", torch.arange(1)), 0
    )
    right = torch.zeros(2, 2)
    right[int(1 - down), int(1 - across)] = 1
    assert torch.allclose(shown[0, 0], right.repeat_interleave(4, 0).repeat_interleave(4, 1))


def test_smoothing_spreads_each_slope_and_keeps_its_sum() -> None:
    impulse = torch.zeros(1, 2, 9, 9)
    impulse[0, 1, 4, 4] = 1.0
    spread = smoothed(impulse, 5)
    assert torch.allclose(spread.sum(), torch.tensor(1.0))
    assert (spread[0, 0] == 0).all()
    kernel = spread[0, 1, 2:7, 2:7]
    assert torch.allclose(kernel, kernel.T) and torch.allclose(kernel, kernel.flip(0))
    # 1.5 sigma from the middle, a pixel beside it.
    ratio = torch.tensor(-(1.5**2) / 2).exp()
    assert torch.allclose(kernel[2, 3] / kernel[2, 2], ratio)


def test_ti_fgsm_follows_smoothed_gradients() -> None:
    model, x, y = cnn()
    x_adv, _ = attacked(TIFGSM(steps=1, kernel=3), model, x, y, LINF, drop=False)
    step = (0.2 * smoothed(slope(model, x, y), 3).sign() + x).clamp(0, 1)
    assert torch.allclose(x_adv, step)


def test_variance_tuning_changes_nothing_where_gradients_do_not_vary() -> None:
    model, x, y = affine(2, 6, (1, 4, 4))
    plain, _ = attacked(MIFGSM(loss=build("loss", "margin")), model, x, y, LINF, drop=False)
    tuned, victim = attacked(VMIFGSM(loss="margin"), model, x, y, LINF, drop=False)
    assert torch.allclose(plain, tuned)
    assert (victim.forwards == 10 + 9 * 20).all()


def test_variance_tuning_adds_how_gradients_vary_around() -> None:
    model, x, y = cnn()
    plain, _ = attacked(MIFGSM(steps=3), model, x, y, LINF, drop=False)
    tuned, _ = attacked(VMIFGSM(steps=3, neighbours=2), model, x, y, LINF, drop=False)
    assert not torch.allclose(plain, tuned)
    still, _ = attacked(VMIFGSM(steps=3, reach=1e-9), model, x, y, LINF, drop=False)
    assert torch.allclose(plain, still)


def test_options_of_the_family_go_together() -> None:
    model, x, y = cnn(channels=3)
    every = MIFGSM(look_ahead=True, diversity=0.5, kernel=3, neighbours=2, decay=0.9)
    x_adv, _ = attacked(every, model, x, y, ThreatModel("linf", 0.5), drop=False)
    assert wrong(model, x_adv, y).float().mean() > 0.8


def test_a_kernel_without_a_middle_is_refused() -> None:
    with pytest.raises(RobustkitError, match="odd"):
        build("attack", {"name": "ti-fgsm", "kernel": 4})
