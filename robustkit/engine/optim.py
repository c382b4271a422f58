"""Optimisers and learning-rate schedules, from a recipe's keys."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from robustkit import recipe
from robustkit.interfaces import Clock


def optimizer(options: recipe.Optimizer, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Make the optimiser that the recipe asks for."""
    lr, decay = options.lr, options.weight_decay
    groups = _groups(list(parameters)) if options.decay == "weights" else parameters
    betas = (options.beta1, options.beta2)
    match options.name:
        case "sgd":
            # torch refuses Nesterov's momentum where there is none.
            nesterov = options.nesterov and options.momentum > 0
            return optim.SGD(groups, lr, options.momentum, 0, decay, nesterov)
        case "adam":
            return optim.Adam(groups, lr, betas, options.eps, decay)
        case "adamw":
            return optim.AdamW(groups, lr, betas, options.eps, decay)
        case "rmsprop":
            return optim.RMSprop(groups, lr, options.rho, options.eps, decay, options.momentum)


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Leave biases and the parameters of norms, which have one axis, out of the decay."""
    weights = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]


def factor(options: recipe.Schedule, clock: Clock) -> float:
    """Give the factor of the learning rate at a step."""
    progress = clock.progress
    match options.name:
        case "constant":
            return 1.0
        case "piecewise":
            return options.factor ** sum(map(clock.reached, options.milestones))
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return 1 - progress
        case "one-cycle":
            rising = options.warmup > 0 and progress < options.warmup
            if rising:
                # The first step moves, too.
                return (clock.step + 1) / (options.warmup * clock.steps + 1)
            return (1 - progress) / (1 - options.warmup)
        case "cyclic":
            # In whole numbers: a cycle begins at 0, not just before it.
            share = options.cycles * clock.step % clock.steps / clock.steps
            if share < options.warmup:
                return share / options.warmup
            return (1 - share) / (1 - options.warmup)
        case "inverse":
            return 1 / (1 + options.decay * clock.step)


def set_lr(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
