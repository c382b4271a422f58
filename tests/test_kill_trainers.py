"""Every trainer is killed and resumed to the same bits, and trains in two processes as in one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from training import Run, same_run, small, weights

from robustkit.catalog import installed
from robustkit.engine.fit import fit
from robustkit.records import RunFolder

QUICK = {"name": "pgd", "steps": 2}
INNER = {"name": "adversarial", "attack": "fgsm"}
TRAINERS: dict[str, dict[str, Any]] = {
    "standard": {},
    "adversarial": {"attack": QUICK},
    "trades": {"attack": {**QUICK, "noise": 0.001}},
    "mart": {"attack": {**QUICK, "noise": 0.001}},
    "free": {"m": 2},
    "fast": {},
    "awp": {"trainer": INNER, "warmup": 1},
    "sam": {"trainer": INNER},
    "consistency": {"attack": QUICK},
}
STATEFUL = {"free": ("", "delta"), "fast": ("", "best")}


def test_every_trainer_robustkit_brings_is_here() -> None:
    own = {e.name for e in installed().of_kind("trainer") if e.plugin == "builtin"}
    assert own == set(TRAINERS)


@pytest.mark.parametrize(
    ("name", "processes"), [*((name, 1) for name in TRAINERS), ("free", 2), ("awp", 2)]
)
def test_killed_and_resumed_to_the_same_bits(name: str, processes: int, tmp_path: Path) -> None:
    recipe = small(("fit.epochs", 3), trainer={"name": name, **TRAINERS[name]})
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    Run(recipe, whole, processes).finish()
    killed = Run(recipe, broken, processes)
    killed.kill(1, random.Random(name))
    killed.finish()
    assert same_run(whole, broken) == []
    parts = weights(whole)["work"]["parts"]
    if name in STATEFUL:
        path, what = STATEFUL[name]
        assert torch.as_tensor(parts[path][what]).any(), "the trainer learned nothing"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("free", {"m": 2}),
        ("awp", {"trainer": INNER, "gamma": 0.1}),
        ("sam", {"trainer": INNER, "rho": 0.5}),
    ],
)
def test_two_processes_train_as_one(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """What they share beyond the gradient: perturbations of points, and of weights."""
    recipe = small(
        ("model.dropout", 0.0), ("fit.epochs", 2), ("fit.limit", 198),
        ("optimizer", {"name": "sgd", "lr": 0.05}),
        trainer={"name": name, **options},
    )  # fmt: skip
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    fit(recipe, one, device="cpu")
    Run(recipe, two, 2).finish()
    first, second = weights(one)["work"]["model"], weights(two)["work"]["model"]
    for key, weight in first.items():
        torch.testing.assert_close(second[key], weight, rtol=1e-4, atol=1e-5)


def test_free_training_keeps_its_perturbation_and_steps_on_each_replay(tmp_path: Path) -> None:
    recipe = small(("trainer.m", 3), ("fit.epochs", 1), trainer="free")
    fit(recipe, RunFolder(tmp_path / "run"), device="cpu")
    state = weights(RunFolder(tmp_path / "run"))["work"]
    assert state["optimizer"]["state"][0]["step"] == 3 * 4
    delta = state["parts"][""]["delta"]
    assert delta.abs().max() == pytest.approx(0.05)
