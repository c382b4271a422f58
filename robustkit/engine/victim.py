"""The model as an attack sees it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.errors import BrokenPluginError, RobustkitError
from robustkit.interfaces import Attack
from robustkit.threat import ThreatModel

ROUNDING = 1e-5
"""A point is wrong beyond rounding where its margin is below -ROUNDING times its largest logit."""

SMALLEST = 8
"""Kernels change below a few rows, and results with them in the last bits, which an iterative
attack amplifies: smaller calls are padded so that a verdict does not depend on the batch (but for
models in training mode, whose batch statistics the padding would change)."""


VALUES = 65_536
"""Of images that fill a pass forward and backward on a processor, for each of its threads."""

View = Callable[[Tensor, Tensor | None], Tensor]


def quantised(threat: ThreatModel, x: Tensor) -> View:
    """Show the model what an image file makes of the points of a search from x (N, C, H, W).

    So whatever fools it fools it as a file. The gradient is that of where the point is rounded to.
    A call that says no rows is of all points, or rounded to what is nearest.
    """
    anywhere = replace(threat, eps=math.inf)

    def view(x_adv: Tensor, rows: Tensor | None) -> Tensor:
        with torch.no_grad():
            if rows is None and len(x_adv) != len(x):
                rounded = anywhere.quantise(x_adv, x_adv)
            else:
                rounded = threat.quantise(x_adv, x if rows is None else x[rows])
        return rounded + (x_adv - x_adv.detach())

    return view


class Tick(torch.autograd.Function):
    """Tells how many backward passes a call of it is: several where they are mapped over."""

    @staticmethod
    def forward(gradient: Tensor, note: Callable[[int], None]) -> Tensor:
        note(1)
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None], gradient: Tensor, note: Callable[[int], None]
    ) -> tuple[Tensor, int]:
        note(info.batch_size)
        return gradient, in_dims[0]


class CountingVictim:
    """A model behind a count of its passes: see robustkit.interfaces.Victim.

    `forwards` and `backwards` (N,) count the passes spent on each of the call's n points; `spread`
    says that some call did not name its rows, so passes were spread evenly; `stopped` (N,) which
    points' searches ran out of time. `view` makes of images and their rows what the model is shown;
    gradients pass through it. Logits are the mean of `eot` passes: a gradient is that of the loss
    of the mean, where expectation over transformation in the sense of Athalye et al. 2018 (arXiv
    1707.07397) takes that of the mean loss. `whole` says that calls are not to be asked in parts: a
    batch of training fits, and in training mode its statistics are those of all.
    """

    def __init__(
        self,
        model: nn.Module,
        n: int,
        device: torch.device,
        *,
        drop: bool,
        view: View | None = None,
        eot: int = 1,
        whole: bool = False,
    ) -> None:
        self.eot, self.whole = eot, whole
        self.model, self.drop, self.view, self.spread = model, drop, view, False
        self.forwards = torch.zeros(n, device=device)
        self.backwards = torch.zeros(n, device=device)
        self.stopped = torch.zeros(n, dtype=torch.bool, device=device)

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        if self.view is not None:
            x = self.view(x, rows)
        short = 0 if self.model.training or not len(x) else SMALLEST - len(x)
        padded = torch.cat((x, x[-1:].expand(short, *x.shape[1:]))) if short > 0 else x
        logits: Tensor = self.model(padded)[: len(x)]
        if self.eot > 1:
            more = [self.model(padded)[: len(x)] for _ in range(1, self.eot)]
            logits = torch.stack((logits, *more)).mean(0)
        self._count(self.forwards, len(x), rows)
        if logits.requires_grad:
            self._count_backwards(logits, len(x), rows)
        return logits

    def _count_backwards(self, logits: Tensor, called: int, rows: Tensor | None) -> None:
        def note(times: int) -> None:
            self._count(self.backwards, called, rows, times)

        def hook(gradient: Tensor) -> None:
            Tick.apply(gradient, note)

        logits.register_hook(hook)

    def _count(self, passes: Tensor, called: int, rows: Tensor | None, times: int = 1) -> None:
        times *= self.eot
        if rows is None:
            passes += times * called / max(len(passes), 1)
            self.spread = self.spread or called != len(passes)
        else:
            passes.index_add_(0, rows, passes.new_full((called,), times))

    def done(self, logits: Tensor, y: Tensor) -> Tensor:
        """Say which points are wrong by more than rounding; none where nothing may be dropped."""
        if not self.drop:
            return torch.zeros_like(y[:, 0] if y.dim() > 1 else y, dtype=torch.bool)
        logits = logits.detach()
        true = logits.gather(1, y.unsqueeze(1)).squeeze(1)
        others = logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)
        return true - others < -ROUNDING * logits.abs().amax(1)

    def void(self, passes: Tensor, rows: Tensor) -> None:
        """Take back passes forward that a search asked ahead of itself, in vain."""
        self.forwards.index_add_(0, rows, -self.eot * passes.to(self.forwards))

    def late(self, rows: Tensor) -> None:
        """Hear which points a clock stopped the search of."""
        self.stopped[rows] = True

    def most(self, x: Tensor) -> int:
        """Say how many images like those of `x` fill a pass forward and backward.

        On a graphics card that is the user's choice.
        """
        if self.whole or x.device.type != "cpu":
            return sys.maxsize
        return max(VALUES * torch.get_num_threads() // x.shape[1:].numel(), SMALLEST)


@contextmanager
def frozen(model: nn.Module, *, training: bool = False) -> Iterator[nn.Module]:
    """Lend a model out without gradients of parameters; it comes back as it was.

    Modes of all modules, gradient flags, and, in training mode, buffers are put back.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    try:
        model.train(training)
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@contextmanager
def blamed(attack: Attack) -> Iterator[None]:
    """Name the attack where its search fails: BrokenPluginError, in one line."""
    try:
        yield
    except (RobustkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BrokenPluginError(
            f"attack '{attack.name}' failed: {type(error).__name__}: {reason}"
        ) from error
