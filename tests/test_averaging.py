"""The average of weights: by hand, its own memory, what is kept of it, and the same bits again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fit import Breaks
from torch import nn
from training import Run, differences, same_run, small, weights

from robustkit.engine.averaging import Average
from robustkit.engine.fit import fit
from robustkit.engine.fitting import Fitting
from robustkit.engine.processes import Processes, launch
from robustkit.engine.resolve import build
from robustkit.engine.verdict import exact
from robustkit.interfaces import Clock
from robustkit.models.files import load_model
from robustkit.recipe import Recipe
from robustkit.records import RunFolder

EVERYTHING: tuple[tuple[str, Any], ...] = (
    ("fit.average", 0.9),
    ("fit.epochs", 3),
    ("fit.limit", 100),
    ("fit.augment", ["crop", "flip", "cutout"]),
    ("fit.mixup", 0.5),
    ("fit.label_smoothing", 0.1),
    ("fit.channels_last", True),
    ("optimizer", {"name": "sgd", "lr": 0.05, "weight_decay": 0.01, "decay": "weights"}),
    ("schedule", {"name": "cyclic", "warmup": 0.5, "cycles": 2}),
    ("model", {"name": "resnet18", "width": 1}),
)
"""Each option of the engine that holds something or draws something."""


def test_an_average_by_hand() -> None:
    """Of 400 steps 10 are copied; then d = (1 + n) / (10 + n), at most 0.25."""
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.25)
    found = []
    for step in (0, 9, 10, 11, 12, 13, 300):
        model.weight.data.fill_(step)
        average.follow(model, Clock(step=step, steps=400))
        found.append(next(average.model.parameters()).item())
    copied = [0.0, 9.0]
    first = 0.1 * 9 + 0.9 * 10
    second = 2 / 11 * first + 9 / 11 * 11
    third = 0.25 * second + 0.75 * 12
    fourth = 0.25 * third + 0.75 * 13
    assert found == pytest.approx([*copied, first, second, third, fourth, 0.25 * fourth + 225])


def test_a_long_average_lags_as_its_decay_says() -> None:
    """Behind a weight that grows by 1 a step, an average of decay d lags by d / (1 - d)."""
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.9)
    for step in range(1000):
        model.weight.data.fill_(step)
        average.follow(model, Clock(step=step, steps=1000))
    assert next(average.model.parameters()).item() == pytest.approx(999 - 9, abs=1e-2)


def test_buffers_are_copied_and_share_no_memory() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.9)
    mean, copy = (dict(m.named_buffers())["1.running_mean"] for m in (model, average.model))
    mean.fill_(3.0)
    average.follow(model, Clock(step=50, steps=100))
    assert copy.tolist() == [3.0, 3.0]
    mean.fill_(4.0)
    assert copy.tolist() == [3.0, 3.0]
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    assert own.isdisjoint(
        t.data_ptr() for t in (*average.model.parameters(), *average.model.buffers())
    )


def test_the_average_is_measured_and_saved_and_the_weights_are_trained(tmp_path: Path) -> None:
    plain, averaged = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "averaged")
    last = ("select.metric", "last")
    fit(small(last), plain, device="cpu")
    fit(small(last, ("fit.average", 0.9)), averaged, device="cpu")
    raw, work = weights(plain)["work"], weights(averaged)["work"]
    average = work["average"]
    assert differences(raw["model"], work["model"]) == []
    trained = {name for name in average if name.endswith(("weight", "bias"))}
    assert trained <= {d.strip("/") for d in differences(average, work["model"])}
    saved = load_model(averaged.model).module
    assert all(torch.equal(w, average[name]) for name, w in saved.state_dict().items())
    recipe = small()

    def accuracy(processes: Processes) -> float:
        heldout = Fitting(processes, recipe, build(recipe), RunFolder(tmp_path)).heldout
        with exact():
            return heldout.measure(saved, attacked=False).accuracy

    found = launch(accuracy, (), processes=1, device="cpu", precision="32")
    assert averaged.epochs()[-1].heldout_accuracy == found
    assert raw["average"] is None


@pytest.fixture(scope="module")
def everything() -> Recipe:
    return small(*EVERYTHING)


def test_interrupted_and_resumed_to_the_same_bits(everything: Recipe, tmp_path: Path) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    fit(everything, whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(everything, broken, device="cpu", progress=Breaks(3))
    assert len(broken.epochs()) == 1
    fit(everything, broken, resume=True, device="cpu")
    assert same_run(whole, broken) == []
    work = weights(broken)["work"]
    assert [group["weight_decay"] for group in work["optimizer"]["param_groups"]] == [0.01, 0.0]
    assert work["average"].keys() == work["model"].keys()


def test_on_two_processes_killed_and_resumed_to_the_same_bits(
    everything: Recipe, tmp_path: Path
) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    Run(everything, whole, 2).finish()
    killed = Run(everything, broken, 2)
    killed.kill(2, random.Random(0))  # the first epoch's checkpoint is then written
    killed.finish()
    assert same_run(whole, broken) == []
