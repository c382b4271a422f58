"""Models and attacks for the tests of evaluation: what each does to a point is known beforehand."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustkit.arrays import EvalPoints
from robustkit.data.digits import Digits
from robustkit.data.images import ArrayImages
from robustkit.engine import blocks
from robustkit.engine.evaluate import evaluate
from robustkit.engine.identity import hash_module
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.records import EvalRecord, RunFolder
from robustkit.threat import ThreatModel, per_point


class Linear(nn.Module):
    """Two classes apart by the sign of w.x + b; its distance to the border is known."""

    def __init__(self, seed: int = 0, pixels: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(pixels, generator=generator))
        self.b = nn.Parameter(-self.w.detach().sum() / 2)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.flatten(1) @ self.w + self.b
        return torch.stack((lead, -lead), 1)

    def radius(self, x: Tensor, norm: str) -> Tensor:
        """Give the distance of x (N, ...) to the border, where the box is far."""
        dual = {"linf": self.w.abs().sum(), "l2": self.w.norm(), "l1": self.w.abs().max()}[norm]
        lead: Tensor = x.flatten(1) @ self.w + self.b
        return (lead.abs() / dual).detach()


def linear_images(model: Linear, n: int = 200, wrong: int = 10) -> ArrayImages:
    """Give grey images near the border, right under `model` but for every `n // wrong`-th label."""
    pixels = np.random.default_rng(1).integers(112, 144, (n, 1, 4, 4), dtype=np.uint8)
    with torch.no_grad():
        labels = model(torch.from_numpy(pixels) / 255).argmax(1).numpy()
    labels[:: n // wrong] = 1 - labels[:: n // wrong]
    return ArrayImages(pixels, labels, ["up", "down"])


class Step(Attack):
    """One step of `factor * eps` up the loss: exact on a linear model where factor is 1."""

    name = "step"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "none")
    factor: float = 1.0

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        x = x.requires_grad_()
        loss = nn.functional.cross_entropy(victim(x), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        return x + self.factor * threat.eps * threat.steepest(gradient)


class Idle(Step):
    """Says that it broke every point, and proposes the original."""

    name = "idle"

    def perturb(self, victim: Victim, x: Tensor, y: Tensor, *rest: Any, **more: Any) -> Tensor:
        self.__dict__["success"] = torch.ones_like(y, dtype=torch.bool)
        victim(x[:1])
        return x


class NotANumber(Step):
    name = "not-a-number"

    def perturb(self, victim: Victim, x: Tensor, y: Tensor, *rest: Any, **more: Any) -> Tensor:
        x_adv = super().perturb(victim, x, y, *rest, **more)
        return x_adv.where(per_point(torch.arange(len(x)) % 2 == 0, x), math.nan)


class WrongShape(Step):
    name = "wrong-shape"

    def perturb(self, victim: Victim, x: Tensor, y: Tensor, *rest: Any, **more: Any) -> Tensor:
        return x[:, :, :2]


class Raises(Step):
    name = "raises"

    def perturb(self, victim: Victim, x: Tensor, y: Tensor, *rest: Any, **more: Any) -> Tensor:
        raise ZeroDivisionError("no such luck\nsecond line")


class Hungry(Step):
    """Wants more memory than there is for more than `fits` images."""

    name = "hungry"
    fits: int = 20

    def perturb(self, victim: Victim, x: Tensor, y: Tensor, *rest: Any, **more: Any) -> Tensor:
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().perturb(victim, x, y, *rest, **more)


class DiesOnce(Step):
    """Takes its process along, if that is not the first one, until `marker` is there."""

    name = "dies-once"
    marker: str

    def perturb(self, victim: Victim, x: Tensor, y: Tensor, *rest: Any, **more: Any) -> Tensor:
        if multiprocessing.parent_process() and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().perturb(victim, x, y, *rest, **more)


class Walk(Step):
    """A random walk of projected steps: every point has its own noise."""

    name = "walk"
    steps: int = 5
    own_noise: bool = True

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        x_adv, rows = x.clone(), torch.arange(len(x))
        for at in range(self.steps):
            noise = rng.normal(x.shape[1:], at=at) if self.own_noise else torch.randn_like(x)
            moved = threat.project(x_adv + threat.eps * noise, x)
            open_rows = rows[~victim.done(victim(x_adv, rows), y)]
            x_adv[open_rows] = moved[open_rows]
        return x_adv


class Nearest(Attack):
    """The nearest adversary of a linear model, `slack` beyond the border."""

    name = "nearest"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    minimal: ClassVar[bool] = True
    slack: float = 1e-3

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        x = x.requires_grad_()
        logits = victim(x)
        lead = (logits[:, 0] - logits[:, 1]) / 2
        (gradient,) = torch.autograd.grad(lead.sum(), x)
        away = lead.detach() / threat.dual_size(gradient) * (1 + self.slack)
        return x - per_point(away, x) * threat.steepest(gradient)


class Several(Step):
    """Runs its parts in turn."""

    name = "several"
    names: tuple[str, ...] = ("idle", "step")
    marker: str = ""

    def parts(self, classes: int, threat: ThreatModel) -> Sequence[Attack]:
        known = {a.name: a for a in (Idle(), Step(), Walk(), Nearest(slack=0.1))}
        known["dies-once"] = DiesOnce(marker=self.marker)
        known["outside"] = Step(factor=3)
        known["nearer"] = Nearest()
        return [known[name] for name in self.names]

    def remarks(self, classes: int, threat: ThreatModel) -> Sequence[str]:
        return [f"{len(self.names)} parts of {classes} classes"]


class Watcher:
    """Keeps what progress says."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, str, int, int, float]] = []
        self.notes: list[str] = []

    def update(self, attack: str, part: str, done: int, total: int, bound: float) -> None:
        self.updates.append((attack, part, done, total, bound))

    def note(self, line: str) -> None:
        self.notes.append(line)


class Impatient(Watcher):
    """Presses Ctrl-C after some signs of progress."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def update(self, *args: Any) -> None:
        super().update(*args)
        if len(self.updates) > self.after:
            raise KeyboardInterrupt


def run(
    folder: Path,
    model: nn.Module,
    images: Any,
    attacks: Sequence[Attack],
    *threats: ThreatModel,
    **options: Any,
) -> list[EvalRecord]:
    """Evaluate on the processor with what is the same in every test."""
    return evaluate(
        model,
        images,
        attacks,
        threats,
        folder=RunFolder(folder),
        model_name="model",
        model_hash=hash_module(model),
        data={"name": "test"},
        **{"device": "cpu", **options},
    )


def points_of(folder: Path, record: EvalRecord) -> EvalPoints:
    """Read the points of a record."""
    return EvalPoints.read(RunFolder(folder).evaluations / f"{record.stem}.npz")


class Means(nn.Module):
    """The class of the nearest class mean: nine in ten digits, without training."""

    def __init__(self, x: Tensor, y: Tensor, classes: int) -> None:
        super().__init__()
        means = torch.stack([x[y == label].mean(0).flatten() for label in range(classes)])
        self.head = nn.Linear(means.shape[1], classes)
        with torch.no_grad():
            self.head.weight.copy_(2 * means)
            self.head.bias.copy_(-means.pow(2).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


class Noisy(Linear):
    """Never gives the same answer twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.02 * torch.randn_like(x))


def verdicts(folder: Path, record: EvalRecord) -> dict[str, list[Any]]:
    """Give what must be the same however an evaluation is run."""
    columns = vars(points_of(folder, record)).items()
    return {name: np.nan_to_num(column, nan=-1).tolist() for name, column in columns}


def digits() -> tuple[Means, Any]:
    """Give a model of the digits, and their test part."""
    train, test = Digits().split("train"), Digits().split("test")
    x = train.take(torch.arange(len(train))).float() / 255
    return Means(x, train.labels, 10), test


SMALL_BLOCK = 64
KILLED = (Several(names=("walk", "step")), ThreatModel("linf", 0.1))
"""What the killed evaluations run: two parts, the first of which leaves points to the second."""


def run_killed(file: Path, folder: Path, dies_at: int, how: str) -> None:
    """Evaluate in this process and die at the n-th sign of progress, or the n-th file written.

    `file` holds the pixels, their labels, and weights and bias of the model.
    """
    blocks.BLOCK = SMALL_BLOCK
    left = dies_at

    def count(*args: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    watcher = Watcher()
    if how == "progress":
        watcher.update = count  # type: ignore[method-assign]
    else:
        replace = os.replace
        os.replace = lambda *args: (count(), replace(*args))[1]  # type: ignore[assignment]
    with np.load(file) as arrays:
        images = ArrayImages(arrays["x"], arrays["y"], [str(i) for i in range(10)])
        model = Means(torch.zeros(10, 1, 8, 8), torch.arange(10), 10)
        model.head.weight.data = torch.from_numpy(arrays["weight"])
        model.head.bias.data = torch.from_numpy(arrays["bias"])
    attack, threat = KILLED
    run(folder, model, images, [attack], threat, progress=watcher, batch_size=32)
