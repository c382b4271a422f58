"""Attacks on randomised models that see the mean of several passes as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from eval_parts import Linear, linear_images, points_of, run
from torch import Tensor, nn

from robustkit.attacks.pgd import FGSM, PGD
from robustkit.engine.victim import CountingVictim
from robustkit.errors import BadValueError
from robustkit.threat import ThreatModel


class Noisy(nn.Module):
    """A linear model whose weights are other ones in each pass, around known means."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.linear, self.sigma = Linear(), sigma

    def forward(self, x: Tensor) -> Tensor:
        w = self.linear.w + self.sigma * torch.randn_like(self.linear.w)
        lead = (x - 0.5).flatten(1) @ w
        return torch.stack((lead, -lead), 1)


def test_the_gradient_is_that_of_the_mean_and_every_pass_is_counted() -> None:
    model, x = Noisy(1.0), torch.full((9, 1, 4, 4), 0.5)
    off = {}
    for eot in (1, 400):
        torch.manual_seed(0)
        victim = CountingVictim(model, 9, x.device, drop=True, eot=eot)
        rows, asked = torch.arange(8), x[:8].clone().requires_grad_()
        logits = victim(asked, rows)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), asked)
        off[eot] = float((gradient.flatten(1)[0] - model.linear.w.detach()).norm())
        assert victim.forwards.tolist() == victim.backwards.tolist() == [eot] * 8 + [0]
        victim.void(torch.ones(8), rows)
        assert victim.forwards.tolist() == [0] * 9
    # The mean of 400 draws of 16 weights is about 4 / 20 away from theirs.
    assert off[400] < 0.4 < 2 < off[1]


def test_a_step_along_the_mean_breaks_what_a_noisy_one_does_not(tmp_path: Path) -> None:
    model = Noisy(2.0)
    images = linear_images(model.linear, wrong=1)
    threat = ThreatModel("linf", 0.02)
    (one,) = run(tmp_path, model, images, [FGSM()], threat)
    (mean,) = run(tmp_path, model, images, [FGSM()], threat, eot=50)
    assert mean.robust.count < one.robust.count - 10
    assert (one.eot, mean.eot) == (1, 50) and one.hash != mean.hash
    assert mean.parts[0].forwards == 50 * mean.parts[0].attacked
    assert points_of(tmp_path, mean).forwards.max() == 50
    assert "the attack saw the mean of the logits of 50 passes as one (EOT)" in mean.remarks


def test_of_a_model_that_is_not_random_the_mean_is_the_model(tmp_path: Path) -> None:
    model = Linear()
    images, threat = linear_images(model), ThreatModel("linf", 0.004)
    (one,) = run(tmp_path, model, images, [PGD(steps=3)], threat)
    (mean,) = run(tmp_path, model, images, [PGD(steps=3)], threat, eot=3)
    assert points_of(tmp_path, one).robust.tolist() == points_of(tmp_path, mean).robust.tolist()
    assert mean.parts[0].forwards == 3 * one.parts[0].forwards
    with pytest.raises(BadValueError, match="eot 0"):
        run(tmp_path, model, images, [PGD()], threat, eot=0)
