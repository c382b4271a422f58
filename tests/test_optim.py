"""Optimisers and schedules: against values by hand, and against torch's own where it has them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from robustkit.engine import optim
from robustkit.interfaces import Clock
from robustkit.recipe import Optimizer, Schedule

STEPS, EPOCHS = 100, 10


def rates(steps: int = STEPS, epochs: int = EPOCHS, **schedule: Any) -> list[float]:
    """Give the factor of each step."""
    options = Schedule(**schedule)
    per_epoch = steps // epochs
    return [optim.factor(options, Clock(s // per_epoch, epochs, s, steps)) for s in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ({"name": "constant"}, [1, 1, 1, 1]),
        ({"name": "piecewise", "milestones": [5, 0.75]}, [1, 1, 0.1, 0.01]),
        ({"name": "cosine"}, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ({"name": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"name": "one-cycle", "warmup": 0.5}, [1 / 51, 26 / 51, 1, 0.5]),
        ({"name": "cyclic", "warmup": 0.5}, [0, 0.5, 1, 0.5]),
        ({"name": "cyclic", "warmup": 0.5, "cycles": 2}, [0, 1, 0, 1]),
        ({"name": "cyclic", "warmup": 0.4}, [0, 0.625, 5 / 6, 2.5 / 6]),
        ({"name": "cyclic", "warmup": 0, "cycles": 2}, [1, 0.5, 1, 0.5]),
        ({"name": "inverse", "decay": 0.04}, [1, 1 / 2, 1 / 3, 1 / 4]),
    ],
)
def test_schedules_by_hand(schedule: dict[str, Any], factors: list[float]) -> None:
    found = rates(**schedule)
    assert [found[step] for step in (0, 25, 50, 75)] == pytest.approx(factors)


def test_a_milestone_counts_from_its_first_step_on() -> None:
    found = rates(name="piecewise", milestones=[0.5, 0.75], factor=0.1)
    assert found[49:51] == pytest.approx([1, 0.1])
    assert found[74:76] == pytest.approx([0.1, 0.01])


def cyclic(optimizer: torch.optim.Optimizer, cycles: int, warmup: float) -> lr_scheduler.CyclicLR:
    up = round(STEPS / cycles * warmup)
    down = STEPS // cycles - up
    return lr_scheduler.CyclicLR(optimizer, 0.0, 1.0, up, down, cycle_momentum=False)


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        ({"name": "linear"}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, STEPS)),
        (
            {"name": "piecewise", "milestones": [3, 7.5], "factor": 0.2},
            lambda o: lr_scheduler.MultiStepLR(o, [30, 75], 0.2),
        ),
        ({"name": "cyclic", "warmup": 0.5}, lambda o: cyclic(o, 1, 0.5)),
        ({"name": "cyclic", "warmup": 0.4, "cycles": 5}, lambda o: cyclic(o, 5, 0.4)),
        ({"name": "inverse", "decay": 0.1}, lambda o: lr_scheduler.LambdaLR(o, inverse)),
    ],
)
def test_schedules_are_torchs(schedule: dict[str, Any], theirs: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, expected = theirs(optimizer), []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(**schedule) == pytest.approx(expected, abs=1e-9)


def inverse(step: int) -> float:
    return 1 / (1 + 0.1 * step)


@pytest.mark.parametrize(
    ("steps", "cycles"), [(7, 1), (7, 7), (30, 3), (98, 7), (391, 3), (22, 22)]
)
def test_cycles_begin_at_zero_and_stay_between(steps: int, cycles: int) -> None:
    found = rates(steps, 1, name="cyclic", warmup=0.5, cycles=cycles)
    assert found[0] == 0
    assert all(0 <= rate <= 1 for rate in found)
    assert sum(rate == 0 for rate in found) == math.gcd(steps, cycles)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_optimisers_descend(name: str) -> None:
    x = nn.Parameter(torch.tensor([3.0]))
    optimizer = optim.optimizer(Optimizer(name=name, lr=0.05), [x])  # type: ignore[arg-type]
    for _ in range(200):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert x.abs() < 1
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("decay", ["all", "weights"])
def test_biases_and_norms_decay_only_where_all_do(name: str, decay: str) -> None:
    """Without a gradient nothing but the decay moves a parameter."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    options = Optimizer(name=name, lr=0.1, weight_decay=0.5, decay=decay)  # type: ignore[arg-type]
    optim.optimizer(options, model.parameters()).step()
    decayed = {name for name, p in model.named_parameters() if bool((p < 1).all())}
    weights = {"0.weight", "3.weight"}
    assert decayed == (weights if decay == "weights" else dict(model.named_parameters()).keys())


def test_the_rate_is_of_all_groups() -> None:
    options = Optimizer(decay="weights", weight_decay=0.1)
    optimizer = optim.optimizer(options, nn.Linear(2, 2).parameters())
    optim.set_lr(optimizer, 0.03)
    assert [group["lr"] for group in optimizer.param_groups] == [0.03, 0.03]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    ("epochs", "first"), [(0, 0), (1, 7), (2.5, 18), (0.5, 14), (0.999, 28), (4, 28), (9, None)]
)
def test_the_clock_says_when_epochs_are_done(epochs: float, first: int | None) -> None:
    steps = [Clock(step // 7, 4, step, 28) for step in range(29)]
    assert next((c.step for c in steps if c.reached(epochs)), None) == first
