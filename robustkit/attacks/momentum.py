"""The momentum family: steps along an accumulated gradient, made to fool other models, too."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from robustkit.attacks.pgd import objective_of, steepest
from robustkit.attacks.search import Objective, Search
from robustkit.component import slot
from robustkit.interfaces import Attack, Loss, Rng, Victim
from robustkit.threat import ThreatModel, per_point


class MIFGSM(Attack):
    """The iterative fast gradient sign method with momentum, from the original point.

    Every point takes every step, and the last point is proposed. Dong et al. 2018 (arXiv
    1710.06081), algorithm 1. The options of its kin go together with it and with each other:
    `ni-fgsm`, `di-fgsm`, `ti-fgsm` and `vmi-fgsm` only set them otherwise.
    """

    name = "mi-fgsm"
    norms = ("linf", "l2", "l1")
    soft = True
    steps: int = Field(default=10, ge=1, description="gradient steps")
    step_size: float | None = Field(
        default=None, gt=0, description="size of a step in the threat's norm; else eps / steps"
    )
    decay: float = Field(default=1.0, ge=0, description="what is kept of earlier gradients")
    look_ahead: bool = Field(default=False, description="take gradients a step of momentum ahead")
    diversity: float = Field(
        default=0.0, ge=0, le=1, description="chance that an image is shrunk before a pass"
    )
    smallest: float = Field(
        default=0.9, gt=0, le=1, description="side of the most shrunk image, as a share"
    )
    kernel: int = Field(
        default=1, ge=1, description="side of the Gaussian that smooths gradients, odd; 1 for none"
    )
    neighbours: int = Field(
        default=0, ge=0, description="points around, whose gradients tune a step"
    )
    reach: float = Field(default=1.5, gt=0, description="how far neighbours lie, in eps")
    loss: Loss = slot("cross-entropy", "what is ascended")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("it must be odd, so that it has a middle")
        return kernel

    @torch.no_grad()
    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        search = Search(self, victim, x, y, threat, target)
        objective = objective_of(self.loss, search, rng)
        step_size = self.step_size or threat.eps / self.steps
        x_adv, momentum, variance = x, torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            look = x_adv
            if self.look_ahead:
                look = x_adv + step_size * self.decay * _in_norm(threat, momentum)
            gradient = self._gradient(search, look, objective, rng, ("look", step))
            tuned = _unit(gradient + variance)
            if self.neighbours and step + 1 < self.steps:
                variance = self._around(search, look, objective, threat, rng, step) - gradient
            momentum = self.decay * momentum + tuned
            x_adv = threat.project(steepest(threat, step_size, x_adv, momentum), x)
        return x_adv

    def _gradient(
        self, search: Search, x_adv: Tensor, objective: Objective, rng: Rng, at: object
    ) -> Tensor:
        """Give the gradient of the loss through input diversity, smoothed."""
        with torch.enable_grad():
            x_adv = x_adv.detach().requires_grad_()
            shown = self._diverse(x_adv, rng, at) if self.diversity else x_adv
            logits = search.victim(shown, search.rows)
            (gradient,) = torch.autograd.grad(objective(logits, search.rows).sum(), x_adv)
        return smoothed(gradient, self.kernel) if self.kernel > 1 else gradient

    def _around(
        self,
        search: Search,
        x_adv: Tensor,
        objective: Objective,
        threat: ThreatModel,
        rng: Rng,
        step: int,
    ) -> Tensor:
        """Give the mean gradient of points drawn around. Wang and He 2021, equation 8."""
        total = torch.zeros_like(x_adv)
        for k in range(self.neighbours):
            draw = 2 * rng.uniform(x_adv.shape[1:], at=("neighbour", step, k)) - 1
            near = x_adv + self.reach * threat.eps * _in_norm(threat, draw)
            total += self._gradient(search, near, objective, rng, ("around", step, k))
        return total / self.neighbours

    def _diverse(self, x: Tensor, rng: Rng, at: object) -> Tensor:
        """Shrink some of the images, and put them anywhere on black. Xie et al. 2019, section 3.2.

        Each is resampled bilinearly.
        """
        chance, side, down, across = rng.uniform((4,), at=at).to(x).unbind(1)
        share = self.smallest + (1 - self.smallest) * side
        share = share.where(chance < self.diversity, 1.0)
        # A pixel of the shrunk image shows what lies 1 / share as far from its own middle.
        room = (1 - share) / share
        turn = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
        turn[:, 0, 0], turn[:, 1, 1] = 1 / share, 1 / share
        turn[:, 0, 2], turn[:, 1, 2] = (2 * across - 1) * room, (2 * down - 1) * room
        grid = F.affine_grid(turn, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _unit(gradient: Tensor) -> Tensor:
    """Scale gradients (N, ...) to a mean slope of 1; zero stays zero."""
    mean = gradient.flatten(1).abs().mean(1)
    return gradient / per_point(mean.clamp(min=torch.finfo(gradient.dtype).tiny), gradient)


def _in_norm(threat: ThreatModel, delta: Tensor) -> Tensor:
    """Scale what is of size 1 a pixel (N, ...) to size 1 in norms other than linf."""
    return delta if threat.norm == "linf" else threat.normalise(delta)


def smoothed(gradient: Tensor, side: int) -> Tensor:
    """Convolve gradients (N, C, H, W) with a Gaussian that falls to 3 sigma at its border.

    Dong et al. 2019 (arXiv 1904.02884), section 3.3.
    """
    places = torch.linspace(-3, 3, side, dtype=gradient.dtype, device=gradient.device)
    line = (-(places**2) / 2).exp()
    line = line / line.sum()
    channels = gradient.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, side, side)
    return F.conv2d(gradient, kernel, padding=side // 2, groups=channels)


class NIFGSM(MIFGSM):
    """mi-fgsm with Nesterov's gradient, a step of momentum ahead.

    Lin et al. 2020 (arXiv 1908.06281), algorithm 1 without its copies of other scale.
    """

    name = "ni-fgsm"
    look_ahead: bool = Field(default=True, description="take gradients a step of momentum ahead")


class DIFGSM(MIFGSM):
    """Iterative FGSM whose passes see shrunk images half of the time: input diversity.

    Xie et al. 2019 (arXiv 1803.06978); with decay = 1 it is their M-DI2-FGSM.
    """

    name = "di-fgsm"
    decay: float = Field(default=0.0, ge=0, description="what is kept of earlier gradients")
    diversity: float = Field(
        default=0.5, ge=0, le=1, description="chance that an image is shrunk before a pass"
    )


class TIFGSM(MIFGSM):
    """Iterative FGSM whose gradients are smoothed, as if shifted images were seen too.

    Dong et al. 2019 (arXiv 1904.02884), whose kernel has 15 of 299 pixels.
    """

    name = "ti-fgsm"
    decay: float = Field(default=0.0, ge=0, description="what is kept of earlier gradients")
    kernel: int = Field(
        default=5, ge=1, description="side of the Gaussian that smooths gradients, odd; 1 for none"
    )


class VMIFGSM(MIFGSM):
    """mi-fgsm with variance tuning: a step also follows how gradients vary around the last point.

    Wang and He 2021 (arXiv 2103.15571), algorithm 1.
    """

    name = "vmi-fgsm"
    neighbours: int = Field(
        default=20, ge=0, description="points around, whose gradients tune a step"
    )
