"""Optimisers and learning-rate schedules, from a recipe's keys."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn, optim

from robustkit import recipe
from robustkit.interfaces import Clock


def optimizer(options: recipe.Optimizer, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Make the optimiser that the recipe asks for."""
    lr, decay = options.lr, options.weight_decay
    betas = (options.beta1, options.beta2)
    match options.name:
        case "sgd":
            # torch refuses Nesterov's momentum where there is none.
            nesterov = options.nesterov and options.momentum > 0
            return optim.SGD(parameters, lr, options.momentum, 0, decay, nesterov)
        case "adam":
            return optim.Adam(parameters, lr, betas, options.eps, decay)
        case "adamw":
            return optim.AdamW(parameters, lr, betas, options.eps, decay)
        case "rmsprop":
            return optim.RMSprop(parameters, lr, options.rho, options.eps, decay, options.momentum)


def factor(options: recipe.Schedule, clock: Clock) -> float:
    """Give the factor of the learning rate at a step."""
    progress = clock.progress
    match options.name:
        case "constant":
            return 1.0
        case "piecewise":
            epochs = [m * clock.epochs if m < 1 else m for m in options.milestones]
            passed = sum(clock.step * clock.epochs >= m * clock.steps for m in epochs)
            return options.factor**passed
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
        case "inverse":
            return 1 / (1 + options.decay * clock.step)


def set_lr(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
