"""Which class each point is to be taken for, where a threat asks for one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustkit.engine.rng import PointRng
from robustkit.engine.verdict import Judge
from robustkit.errors import UnknownNameError

RANDOM, LEAST_LIKELY = "random", "least-likely"


def target_name(text: str, classes: Sequence[str]) -> str:
    """Read a target: a class by its name or number, "random" or "least-likely".

    Gives a class's name. Raises UnknownNameError.
    """
    if text in (RANDOM, LEAST_LIKELY, *classes):
        return text
    if text.isdecimal() and int(text) < len(classes):
        return classes[int(text)]
    hint = f"a class by name or number, up to {len(classes) - 1}"
    raise UnknownNameError("target", text, [RANDOM, LEAST_LIKELY, *classes], hint)


def target_class(target: str | None, classes: Sequence[str]) -> int | None:
    """Give the class that all points are to be taken for; None where there is no single one."""
    if target in (None, RANDOM, LEAST_LIKELY):
        return None
    return classes.index(target)


def targets_of(
    target: str, classes: Sequence[str], judge: Judge, ids: Tensor, x: Tensor, y: Tensor
) -> Tensor:
    """Give the class (N,) that each of the points is to be taken for, never its label y (N,).

    A random one is drawn by seed and point; the least likely one has the smallest clean logit.
    """
    if target == RANDOM:
        drawn = PointRng(judge.seed, "target", ids).choice(len(classes) - 1)
        return drawn + (drawn >= y)
    if target == LEAST_LIKELY:
        logits = judge.look(x)[1]
        return logits.scatter(1, y.unsqueeze(1), torch.inf).argmin(1)
    return torch.full_like(y, classes.index(target))
