"""What losses promise."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robustkit.engine.rng import PointRng
from robustkit.interfaces import At, Loss
from robustkit.testing.bench import CLASSES, CLOCK, ids_of, no_global_random_numbers
from robustkit.testing.core import REFUSED, Check, Subject, attempt, require

Y = torch.tensor([0, 1, 2, 3, 0, 2])


def _logits(dtype: torch.dtype = torch.float32) -> Tensor:
    draws = torch.randn((len(Y), CLASSES), generator=torch.Generator().manual_seed(11))
    return draws.to(dtype)


def _at(rows: Tensor | None = None, seed: int = 0) -> At:
    ids = ids_of(len(Y)) if rows is None else ids_of(len(Y))[rows]
    return At(CLOCK, ids, PointRng(seed, "loss", ids))


def one_a_point(subject: Subject) -> None:
    """The loss and `ascend` give one number a point (N,), of the logits' type."""
    loss: Loss = subject.make()
    for what, function in (("the loss", loss), ("ascend", loss.ascend)):
        for n in (1, len(Y)):
            value = function(_logits()[:n], Y[:n], _at(torch.arange(n)))
            require(value.shape == (n,), f"{what} has shape {tuple(value.shape)}, not ({n},)")
            require(value.dtype == torch.float32, f"{what} is {value.dtype} for float32 logits")


def points_not_mixed(subject: Subject) -> None:
    """A point's loss depends on its own logits only: in value, and in gradient."""
    loss: Loss = subject.make()
    for what, function in (("loss", loss), ("ascend", loss.ascend)):
        logits = _logits().requires_grad_()
        together = function(logits, Y, _at())
        for i, value in enumerate(together.tolist()):
            row = torch.tensor([i])
            alone = function(_logits()[row], Y[row], _at(row)).item()
            require(
                math.isclose(alone, value, rel_tol=1e-5, abs_tol=1e-6),
                f"a point's {what} is {alone:.5g} alone and {value:.5g} in a batch",
            )
            if together.requires_grad:
                (gradient,) = torch.autograd.grad(together[i], logits, retain_graph=True)
                gradient[i] = 0
                require(not gradient.any(), f"a point's {what} has gradients at other points")


def finite_at_extremes(subject: Subject) -> None:
    """Loss and gradient are finite at logits of 1e4, and where all logits are equal."""
    loss: Loss = subject.make()
    label = F.one_hot(Y, CLASSES).float()
    cases = {"1e4 at the label": 2e4 * label - 1e4, "-1e4 at the label": 1e4 - 2e4 * label,
             "1e4 everywhere": 0 * label + 1e4, "-1e4 everywhere": 0 * label - 1e4,
             "0 everywhere": 0 * label}  # fmt: skip
    for what, function in (("the loss", loss), ("ascend", loss.ascend)):
        for case, values in cases.items():
            logits = values.clone().requires_grad_()
            value = function(logits, Y, _at())
            require(value.isfinite().all(), f"{what} is not finite with logits {case}")
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), logits)
                require(gradient.isfinite().all(), f"{what}'s gradient is not, with logits {case}")


def gradient_true(subject: Subject) -> None:
    """Gradients are those of the value: of `ascend`, and of the loss where it does not sample."""
    loss: Loss = subject.make()
    functions = {"ascend": loss.ascend}
    if torch.equal(loss(_logits(), Y, _at(seed=0)), loss(_logits(), Y, _at(seed=1))):
        functions["the loss"] = loss
    for what, function in functions.items():
        logits = _logits(torch.float64).requires_grad_()
        require(
            torch.autograd.gradcheck(
                lambda z, f=function: f(z, Y, _at()),
                (logits,),
                raise_exception=False,
            ),
            f"the gradient of {what} is not that of its value, by finite differences",
        )


def own_random_numbers(subject: Subject) -> None:
    """Random numbers come from `at.rng`; the global ones are neither read nor changed."""
    loss: Loss = subject.make()
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with no_global_random_numbers():
            found.append(torch.stack((loss(_logits(), Y, _at()), loss.ascend(_logits(), Y, _at()))))
    require(torch.equal(*found), "the loss depends on torch's global seed")


def ascend_deterministic(subject: Subject) -> None:
    """`ascend` does not depend on random numbers, not even on those of `at`."""
    loss: Loss = subject.make()
    first, second = (loss.ascend(_logits(), Y, _at(seed=seed)) for seed in (0, 1))
    require(torch.equal(first, second), "`ascend` depends on at.rng: attacks cannot maximise it")


def ascend_misleads(subject: Subject) -> None:
    """A small step up the gradient of `ascend` does not help the true class against the others."""
    loss: Loss = subject.make()
    label = F.one_hot(Y, CLASSES).bool()
    for lead, step in itertools.product((0.5, 2.0), (1e-3, 1e-2)):
        logits = (0.1 * _logits() + lead * label).requires_grad_()
        (gradient,) = torch.autograd.grad(loss.ascend(logits, Y, _at()).sum(), logits)
        moved = logits.detach() + step * gradient / (gradient.norm(dim=1, keepdim=True) + 1e-12)

        def margin(z: Tensor) -> Tensor:
            return z[label] - z.masked_fill(label, -torch.inf).amax(1)

        grown = float((margin(moved) - margin(logits.detach())).max())
        require(grown <= 1e-6, f"ascending it raises the true class's lead (by {grown:.3g})")
        require(gradient.any(), "`ascend` has no gradient where predictions are right")


def soft_labels(subject: Subject) -> None:
    """Soft labels are refused in one line, or one-hot ones give what hard ones give."""
    loss: Loss = subject.make()
    soft = F.one_hot(Y, CLASSES).float()
    mixed = 0.5 * soft + 0.5 * soft.roll(1, 0)
    for what, function in (("the loss", loss), ("ascend", loss.ascend)):
        value = attempt(f"a soft label of {what}", function, _logits(), mixed, _at())
        if value is REFUSED:
            continue
        require(value.shape == (len(Y),), f"soft labels: {what} has shape {tuple(value.shape)}")
        values = function(_logits(), soft, _at()), function(_logits(), Y, _at())
        require(
            torch.allclose(*values, rtol=1e-4, atol=1e-6),
            f"{what} of a label differs from that of the same label made soft",
        )


CHECKS = Check.all(
    one_a_point,
    points_not_mixed,
    finite_at_extremes,
    gradient_true,
    own_random_numbers,
    ascend_deterministic,
    ascend_misleads,
    soft_labels,
)
