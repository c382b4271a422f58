"""What the tests of training share: small recipes, and a run in a process that can be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from robustkit.engine import processes as sharing
from robustkit.engine.fit import fit
from robustkit.engine.resolve import resolve
from robustkit.recipe import Recipe
from robustkit.records import RunFolder

SMALL: dict[str, Any] = {
    "data": "digits",
    "model": {"name": "mlp", "hidden": [16], "dropout": 0.2},
    "trainer": {"name": "adversarial", "attack": {"name": "pgd", "steps": 2}},
    "threat": {"norm": "linf", "eps": 0.05},
    "optimizer": {"name": "adam", "lr": 0.01},
    "schedule": {"name": "linear"},
    "fit": {"epochs": 4, "batch_size": 50, "limit": 200, "heldout": 100},
    "select": {"attack": {"name": "fgsm"}, "limit": 50},
}


def small(*settings: tuple[str, Any], **sections: Any) -> Recipe:
    """Resolve the small recipe with some sections replaced and some keys set."""
    recipe, _ = resolve({**SMALL, **sections}, settings)
    return recipe


def weights(folder: RunFolder) -> dict[str, Any]:
    """Give the state that a run ended with."""
    state: dict[str, Any] = torch.load(folder.checkpoint, weights_only=True)
    return state


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Name the places where two nested states differ by a single bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differences(x, y, f"{path}/{i}")
        ]
    return [] if a == b else [f"{path}: {a!r} and {b!r}"]


def same_run(one: RunFolder, other: RunFolder) -> list[str]:
    """Name what differs between two finished runs, times aside."""
    states = [{k: v for k, v in weights(f).items() if k != "started"} for f in (one, other)]
    found = differences(*states)
    models = [
        torch.load(f.model, weights_only=True)["weights"] for f in (one, other) if f.model.exists()
    ]
    if len(models) == 2:
        found += differences(*models, "model.pt")
    lines = [
        [line.model_copy(update={"seconds": 0.0}) for line in f.epochs()] for f in (one, other)
    ]
    return found + differences(*lines, "metrics")


class Run:
    """A training in a process of its own, forked so that it need not import torch again."""

    def __init__(self, recipe: Recipe, folder: RunFolder, processes: int = 1) -> None:
        self.recipe, self.folder, self.processes = recipe, folder, processes

    @staticmethod
    @cache
    def _warm() -> None:
        """Import here all that a training imports, so that no forked process has to."""
        with tempfile.TemporaryDirectory() as path:
            fit(small(("fit.epochs", 1)), RunFolder(Path(path)), device="cpu")

    def begin(self) -> multiprocessing.process.BaseProcess:
        """Start or resume."""
        self._warm()
        process = multiprocessing.get_context("fork").Process(target=self._train)
        process.start()
        return process

    def _train(self) -> None:
        os.setsid()
        sharing.SHARING = "ddp_fork"
        torch.cuda._is_in_bad_fork = lambda: False  # which Fabric asks even on the CPU
        resume = self.folder.recipe.exists()
        fit(self.recipe, self.folder, resume=resume, device="cpu", processes=self.processes)

    def kill(self, epochs: int, rng: random.Random) -> None:
        """Run, and kill all of its processes with signal 9 some time after an epoch is done."""
        process = self.begin()
        while process.is_alive() and self._lines() < epochs:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()

    def _lines(self) -> int:
        metrics = self.folder.metrics
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def finish(self) -> None:
        """Start or resume, and wait for the end."""
        process = self.begin()
        process.join(120)
        assert process.exitcode == 0
