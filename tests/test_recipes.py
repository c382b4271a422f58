"""Every registered recipe and table: complete, built by the catalogue, and true to its source."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from robustkit import recipe as recipes
from robustkit.catalog import installed
from robustkit.engine import reproduce
from robustkit.engine.optim import factor
from robustkit.engine.reproduce import Cut
from robustkit.engine.resolve import resolve, start
from robustkit.interfaces import Clock
from robustkit.recipe import Recipe

RECIPES = [entry.name for entry in installed().of_kind("recipe")]
TABLES = [entry.name for entry in installed().of_kind("table")]
EPS = 8 / 255
CROSS_ENTROPY = {"name": "cross-entropy", "label_smoothing": 0.0}


def recipe(name: str) -> Recipe:
    return resolve(start(name))[0]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_itself_and_says_what_it_is(name: str) -> None:
    made = recipe(name)
    assert made.title
    assert "ours" in made.source
    assert recipes.validate(recipes.parse(recipes.write(made), name)) == made
    assert resolve(made.dump())[0] == made


@pytest.mark.parametrize("name", RECIPES)
def test_a_schedule_ends_within_the_epochs(name: str) -> None:
    made = recipe(name)
    assert all(mark < made.fit.epochs for mark in made.schedule.milestones)
    assert made.select.every <= made.fit.epochs


@pytest.mark.parametrize("name", TABLES)
def test_a_table_plans_a_different_run_for_each_row(name: str, tmp_path: Path) -> None:
    plan = reproduce.planned(name)
    jobs = reproduce.jobs(plan, Cut(seeds=(0,)), tmp_path)
    runs = [job.recipe.model_dump_json(exclude={"title", "source"}) for job in jobs]
    assert len(set(runs)) == len(plan.rows)
    assert all(0 <= number <= 100 for row in plan.rows for number in row.paper.values())


@pytest.mark.parametrize("name", TABLES)
def test_a_shortened_table_keeps_the_shape_of_its_schedules(name: str, tmp_path: Path) -> None:
    """Rates at 0, 1/4, ... of the training are the same with a fifth of the epochs."""
    full = reproduce.jobs(reproduce.planned(name), Cut(seeds=(0,)), tmp_path)
    longest = max(job.recipe.fit.epochs for job in full)
    short = reproduce.jobs(reproduce.planned(name), Cut(seeds=(0,), epochs=longest // 5), tmp_path)
    for long, cut in zip(full, short, strict=True):
        if long.recipe.schedule.name != "inverse":
            assert rates(cut.recipe) == pytest.approx(rates(long.recipe))


def rates(made: Recipe) -> list[float]:
    epochs = made.fit.epochs
    shares = [(k + 0.5) / 8 for k in range(8)]
    return [factor(made.schedule, Clock(0, epochs, round(1000 * s), 1000)) for s in shares]


@pytest.mark.parametrize(
    ("name", "epochs", "expected"),
    [
        ("adversarial-cifar10", 200, {99: 0.1, 100: 0.01, 149: 0.01, 150: 0.001}),
        ("trades-cifar10", 76, {73: 0.1, 74: 0.01, 75: 0.01}),
        ("awp-cifar10", 200, {98: 0.1, 99: 0.01, 149: 0.001}),
        ("mart-cifar10", 120, {73: 0.01, 74: 1e-3, 89: 1e-4, 99: 1e-5}),
        ("fast-cifar10", 15, {0: 0.0, 7.5: 0.2, 3.75: 0.1, 11.25: 0.1}),
        ("free-cifar10", 26, {12: 0.1, 13: 0.01, 19: 0.01, 20: 0.001}),
        ("policy-loss-mnist", 200, {49: 0.1, 50: 0.01, 150: 0.001}),
        ("policy-loss-cifar10", 200, {49: 0.1, 50: 0.01, 150: 0.001}),
        ("policy-loss-trades-cifar10", 100, {74: 0.1, 75: 0.01}),
        ("policy-gradient-cifar10", 220, {0: 1e-4}),
    ],
)
def test_published_learning_rates(name: str, epochs: int, expected: dict[float, float]) -> None:
    made = recipe(name)
    assert made.fit.epochs == epochs
    steps = 100
    for epoch, lr in expected.items():
        clock = Clock(int(epoch), epochs, round(epoch * steps), epochs * steps)
        assert made.optimizer.lr * factor(made.schedule, clock) == pytest.approx(lr), epoch


@pytest.mark.parametrize(
    ("name", "eps", "step", "momentum", "decay"),
    [
        ("adversarial-cifar10", EPS, 2 / 255, 0.9, 5e-4),
        ("trades-cifar10", 0.031, 0.007, 0.9, 2e-4),
        ("awp-cifar10", EPS, 2 / 255, 0.9, 5e-4),
        ("mart-cifar10", 0.031, 0.007, 0.9, 3.5e-3),
        ("policy-loss-trades-cifar10", EPS, 0.007, 0.9, 1e-4),
    ],
)
def test_published_attacks_and_decay(
    name: str, eps: float, step: float, momentum: float, decay: float
) -> None:
    made = recipe(name)
    trainer = made.trainer or {}
    attack = trainer.get("trainer", trainer)["attack"]
    assert math.isclose(made.threat.model().eps, eps)
    assert (attack["steps"], attack["step_size"]) == (10, pytest.approx(step))
    assert (made.optimizer.momentum, made.optimizer.weight_decay) == (momentum, decay)
    assert made.fit.batch_size == 128
    assert made.fit.augment == ("crop", "flip")


def test_table_6_replaces_cross_entropy_alone() -> None:
    """The rows share their first 75 epochs, and differ by lambda from there."""
    plan = reproduce.planned("policy-loss-trades-cifar10")
    jobs = reproduce.jobs(plan, Cut(), Path())
    losses = [(job.recipe.trainer or {}).pop("loss") for job in jobs]
    assert len({job.recipe.model_dump_json() for job in jobs}) == 1
    assert losses[0] == CROSS_ENTROPY
    for loss, row in zip(losses[1:], plan.rows[1:], strict=True):
        assert loss["warmup"] == CROSS_ENTROPY
        assert loss["switch_epoch"] == 0.75
        assert loss["main"]["penalty"] == float(row.name.removeprefix("lambda "))
        assert (loss["main"]["action"], loss["main"]["reward"]) == ("greedy", 1.0)


def test_ablations_of_table_4_change_what_they_name() -> None:
    jobs = reproduce.jobs(reproduce.planned("policy-loss-cifar10"), Cut(seeds=(0,)), Path())
    losses = [(job.recipe.trainer or {})["loss"] for job in jobs]
    assert [loss["name"] for loss in losses] == [
        "cross-entropy", "two-phase", "two-phase", "policy-gradient",
    ]  # fmt: skip
    assert [job.recipe.fit.epochs for job in jobs] == [100, 200, 200, 200]
    ours, warmed, alone = losses[1:]
    assert (ours["warmup"]["penalty"], ours["main"]["penalty"]) == (0.75, 1.25)
    assert warmed["warmup"] == CROSS_ENTROPY
    assert warmed["main"] == alone
    assert (alone["action"], alone["penalty"]) == ("greedy", 1.0)
