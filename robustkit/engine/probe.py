"""A first look at a model before it is attacked: can its answers be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustkit.engine import checks
from robustkit.engine.verdict import CHUNK, ROUNDS, seeded
from robustkit.errors import BadValueError
from robustkit.losses.margin import margin

PROBED = 256
"""Images that a model is probed on, CHUNK at a time: the first of the order."""


@dataclass(frozen=True)
class Probe:
    """How many passes decide a verdict, and what to warn of."""

    rounds: int
    warnings: tuple[str, ...]


def probe(model: nn.Module, x: Tensor, y: Tensor, classes: Sequence[str], seed: int) -> Probe:
    """Look at the model's answers to a few images x (N, C, H, W) with labels y (N,).

    Raises BadValueError where the model does not answer with logits (N, classes).
    """
    logits = _answer(model, x, classes, seed, 0)
    again = _answer(model, x, classes, seed, 1)
    random = checks.differ(logits, again)
    warnings = checks.randomised(ROUNDS) if random else []
    if not random and len(x) > 1 and _depends_on_batch(model, x, logits, classes, seed):
        warnings += checks.batch_dependence()
    warnings += checks.not_numbers(logits) + checks.softmax_outputs(logits)
    warnings += checks.saturated(logits)
    if logits.shape[1] > 1:
        warnings += checks.masked_gradients(_margin_gradient(model, x, y, seed))
    return Probe(ROUNDS if random else 1, tuple(warnings))


@torch.no_grad()
def _answer(model: nn.Module, x: Tensor, classes: Sequence[str], seed: int, turn: int) -> Tensor:
    parts = x.split(CHUNK)
    try:
        with seeded(x.device, "probe", seed, turn):
            answers = [model(part) for part in parts]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BadValueError(
            f"the model fails on images of shape {tuple(x.shape[1:])}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    found = (
        checks.require_logits(answer, len(part), classes)
        for answer, part in zip(answers, parts, strict=True)
    )
    return torch.cat(list(found))


def _depends_on_batch(
    model: nn.Module, x: Tensor, logits: Tensor, classes: Sequence[str], seed: int
) -> bool:
    half = (min(len(x), CHUNK) + 1) // 2
    return checks.differ(logits[:half], _answer(model, x[:half], classes, seed, 0))


def _margin_gradient(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor | None:
    """Give the gradient of the label's lead over the next class: it does not saturate."""
    gradients: list[Tensor] = []
    with torch.enable_grad(), seeded(x.device, "probe", seed, 0):
        # A graph takes more memory than a pass forward.
        for part, labels in zip(x.split(CHUNK // 4), y.split(CHUNK // 4), strict=True):
            images = part.clone().requires_grad_()
            logits = model(images)
            if not logits.requires_grad:
                return None
            lead = -margin(logits, labels)
            (gradient,) = torch.autograd.grad(lead.sum(), images, allow_unused=True)
            if gradient is None:
                return None
            gradients.append(gradient)
    return torch.cat(gradients)
