"""The small models with known answers, points and helpers that the checks run on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustkit.attacks.foreign import Foreign
from robustkit.engine.kit import TrainingKit
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim, frozen
from robustkit.interfaces import Attack, Batch, Clock, Generator, Trainer
from robustkit.models.common import Classifier
from robustkit.testing.core import require
from robustkit.threat import ThreatModel

SHAPE, CLASSES = (1, 8, 8), 4
QUADRANT = 16
LEADS = (0.10, 0.13, 0.16)
"""By how much the true quadrant is brighter than each other one."""
RADIUS = {
    "linf": LEADS[0] / 2,
    "l2": LEADS[0] * QUADRANT / (2 * QUADRANT) ** 0.5,
    "l1": LEADS[0] * QUADRANT,
}
"""Size of the nearest adversary of `linear_points` under `linear_model`, in closed form."""
RUNNER_UP = LEADS[1] / LEADS[0]
"""The radius of the second nearest class, as a multiple."""
SIZES = {"linf": 0.1, "l2": 1.0, "l1": 5.0, "none": 0.1}
"""An eps in each norm that changes some predictions of `conv_model`."""
PATIENCE = 60
CLOCK = Clock(epoch=1, epochs=4, step=10, steps=40)


def linear_model() -> nn.Module:
    """Give a model whose four logits are the sums of the four quadrants' pixels."""
    layer = nn.Linear(64, CLASSES, bias=False)
    grid = torch.arange(8) // 4
    quadrant = (2 * grid.unsqueeze(1) + grid).flatten()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([(quadrant == k).float() for k in range(CLASSES)]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def linear_points() -> tuple[Tensor, Tensor]:
    """Give x (6, 1, 8, 8), y (6,): grey images, each brightest in its own quadrant.

    Moves of up to five radii stay inside [0, 1], so that the box changes no answer.
    """
    y = torch.tensor([0, 1, 2, 3, 0, 2])
    levels = torch.full((len(y), CLASSES), 0.56)
    for point, label in enumerate(y.tolist()):
        for rank, lead in enumerate(LEADS):
            levels[point, (label + 1 + (rank + point) % 3) % CLASSES] -= lead
    rows = levels.view(-1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return rows.unsqueeze(1).contiguous(), y


def nearest_classes(x: Tensor, y: Tensor) -> Tensor:
    """Rank the wrong classes of linear points by their distance: (N, 3)."""
    return linear_model()(x).scatter(1, y.unsqueeze(1), -torch.inf).topk(3).indices


def conv_model() -> nn.Module:
    """Give a small convolutional model with batch norm and dropout, of fixed weights.

    Like robustkit's own, it has `features` and `head`.
    """
    features = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
    )  # fmt: skip
    model = Classifier(features, nn.Linear(256, CLASSES))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
                value.add_(1.0 if "running_var" in name or name == "features.1.weight" else 0.0)
    return model.eval()


def conv_points() -> tuple[Tensor, Tensor]:
    """Give x (6, 1, 8, 8), partly on the border of the box, and the labels that are right."""
    x = 1.4 * torch.rand((6, *SHAPE), generator=torch.Generator().manual_seed(5)) - 0.2
    x = x.clamp(0, 1)
    with torch.no_grad():
        return x, conv_model()(x).argmax(1)


def batch_of(x: Tensor, y: Tensor) -> Batch:
    """Give points as a batch whose ids differ from their places."""
    return Batch(x, y, ids_of(len(x)), torch.zeros_like(y))


def ids_of(n: int) -> Tensor:
    """Give ids that differ from places."""
    return 100 + 7 * torch.arange(n)


class ImpatientVictim(CountingVictim):
    """A victim that lets go of every point after some calls, so that long searches end soon.

    Of an attack that searches point by point (`alone`), each has its own calls.

    `strayed` counts the images that are far nearer to another of the points than to the one named;
    what has wandered far from all of them is near to none.
    """

    def __init__(self, model: nn.Module, x: Tensor, patience: int, *, alone: bool = False) -> None:
        super().__init__(model, len(x), torch.device("cpu"), drop=True)
        self.alone = alone
        self.home, self.patience = x.flatten(1), patience
        self.calls = self.points = self.strayed = 0
        self.asked, self.last = torch.zeros(len(x)), torch.arange(len(x))

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.points += len(x)
        self.last = torch.arange(len(self.home)) if rows is None else rows
        self.asked[self.last] += 1
        if rows is not None:
            away = torch.cdist(x.detach().flatten(1), self.home)
            named = away.gather(1, rows.unsqueeze(1)).squeeze(1)
            self.strayed += int((2 * away.amin(1) < named).sum())
        return super().__call__(x, rows)

    def done(self, logits: Tensor, y: Tensor) -> Tensor:
        over = super().done(logits, y)
        asked = self.asked[self.last].min() if self.alone else self.calls
        spent = bool(asked >= self.patience)
        return torch.ones_like(over) if spent else over

    def void(self, passes: Tensor, rows: Tensor) -> None:
        self.points -= int(passes.sum())
        super().void(passes, rows)


def search(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    ids: Tensor | None = None,
    target: Tensor | None = None,
    patience: int = PATIENCE,
) -> tuple[Tensor, ImpatientVictim]:
    """Run an attack; give its proposals and the victim that counted."""
    victim = ImpatientVictim(model, x, patience, alone=isinstance(attack, Foreign))
    rng = PointRng(0, attack.name, ids_of(len(x)) if ids is None else ids)
    return attack.perturb(victim, x, y, threat, rng, target), victim


def propose(
    attack: Attack, model: nn.Module, *args: Any, **options: Any
) -> tuple[Tensor, ImpatientVictim]:
    """Run `search` as the engine does, on a frozen model."""
    with frozen(model):
        return search(attack, model, *args, **options)


THREAT = ThreatModel("linf", 0.05)


class BenchKit(TrainingKit):
    """The engine's kit for `conv_points`, whose generators give noise, and few images of it."""

    def __init__(self) -> None:
        self.shape, self.classes = SHAPE, tuple(str(k) for k in range(CLASSES))
        self.counts, self.threat, self.seed = torch.tensor([2, 1, 2, 1]), THREAT, 0
        self.points = 6
        self._total, self._folder = list, TemporaryDirectory()

    def augmented(self, batch: Batch, clock: Clock, name: str) -> Tensor:
        """Shift the points by noise that depends on name and step."""
        return batch.x + 0.01 * self.rng(batch, clock, name).normal(SHAPE)

    def synthesise(self, generator: Generator | Path, n: int, epochs: int | None = None) -> Path:
        """Give a file of noise, labelled in turn."""
        path = Path(self._folder.name) / "samples.npz"
        x = np.random.default_rng(7).integers(0, 256, (CLASSES, *SHAPE), np.uint8)
        np.savez(path, x=x, y=np.arange(CLASSES))
        return path

    def sifted(self, samples: Path, top: float, labeller: Trainer) -> Path:
        """Keep all images."""
        return samples


def same(a: Any, b: Any) -> bool:
    """Compare states, tables and tensors to the bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def look(model: nn.Module, *, buffers: bool = True) -> dict[str, Any]:
    """Take down everything about a model that must come back as it was."""
    return {
        "parameters": {n: p.detach().clone() for n, p in model.named_parameters()},
        "gradients": {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        "gradient flags": {n: p.requires_grad for n, p in model.named_parameters()},
        "training mode": {n: m.training for n, m in model.named_modules()},
        "buffers": {n: b.clone() for n, b in model.named_buffers()} if buffers else {},
    }


@contextmanager
def left_alone(model: nn.Module, *, buffers: bool = True) -> Iterator[None]:
    """Require that a model comes back as it was."""
    before = look(model, buffers=buffers)
    yield
    after = look(model, buffers=buffers)
    for what, value in before.items():
        require(same(value, after[what]), f"the model's {what} come back changed")


@contextmanager
def no_global_random_numbers() -> Iterator[None]:
    """Require that nobody draws from, or seeds, the global random numbers."""
    before = _global_states()
    yield
    for owner, state in _global_states().items():
        what = f"{owner}'s global random numbers are used; draw from the rng given"
        require(state == before[owner], what)


def _global_states() -> dict[str, object]:
    _, keys, position, *_ = np.random.get_state()
    return {
        "Python": random.getstate(),
        "numpy": (np.asarray(keys).tobytes(), position),
        "torch": torch.get_rng_state().tolist(),
    }
