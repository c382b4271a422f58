"""Generators at work: trained like classifiers, drawn from afterwards."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.analysis.statistics import rate
from robustkit.catalog import build
from robustkit.component import State
from robustkit.data.batches import DeviceImages
from robustkit.data.images import remark_of
from robustkit.engine import optim
from robustkit.engine.journal import read_plain
from robustkit.engine.loop import Progress, Silent, prepare, run
from robustkit.engine.points import divide
from robustkit.engine.processes import Processes
from robustkit.engine.resolve import Components
from robustkit.engine.rng import PointRng
from robustkit.engine.selection import HeldOut, Measured
from robustkit.errors import TrainingStoppedError
from robustkit.files import write_whole
from robustkit.interfaces import Batch, Clock, Generator
from robustkit.recipe import Recipe
from robustkit.records import EpochLine, RunFolder, digest

GENERATOR = "generator.pt"


class Synthesis:
    """Trains a generator: see robustkit.engine.loop.Work. Each part has an optimiser of its own."""

    enough = ""

    def __init__(
        self, processes: Processes, recipe: Recipe, components: Components, folder: RunFolder
    ) -> None:
        self.processes, self.recipe = processes, recipe
        assert components.generator is not None
        self.generator: Generator = components.generator
        points = self.points = divide(components.data, recipe.fit, recipe.seed)
        processes.seed(recipe.seed, "weights")
        self.parts = self.generator.build(points.train.shape, len(points.train.classes))
        self.parts.to(processes.device)
        self.optimizers = {
            name: optim.optimizer(recipe.optimizer, part.parameters())
            for name, part in self.parts.items()
        }
        images = DeviceImages(points.train, processes.device)
        self.batches = processes.batches(images, recipe.fit.batch_size, recipe.seed)
        self.heldout = HeldOut(points.heldout, recipe, components.attack, processes)
        self.measured: Measured | None = None

    def epoch(self, epoch: int, progress: Progress) -> EpochLine:
        """Show the generator every point once; measure its classifier where it has one."""
        began, losses, n = time.perf_counter(), dict[str, Tensor](), len(self.batches)
        epochs = self.recipe.fit.epochs
        clock = Clock(epoch, epochs, epoch * n, epochs * n)
        for i, batch in enumerate(self.batches.epoch(epoch)):
            clock = Clock(epoch, epochs, epoch * n + i, epochs * n)
            progress.step(clock)
            for name, loss in self.step(batch, clock).items():
                losses[name] = losses.get(name, 0.0) + loss / n
        means = {f"loss_{name}": float(loss) for name, loss in losses.items()}
        classifier = self.generator.classifier(self.parts)
        self.measured = self.heldout.measure(classifier, attacked=False) if classifier else None
        line = EpochLine(
            epoch=epoch + 1,
            step=clock.step + 1,
            lr=self.recipe.optimizer.lr * optim.factor(self.recipe.schedule, clock),
            loss=sum(means.values()),
            train_accuracy=0.0,
            heldout_accuracy=self.measured.accuracy if self.measured else None,
            seconds=round(time.perf_counter() - began, 3),
            more=means,
        )
        self.generator.end_epoch(line.model_dump(exclude={"more"}, exclude_none=True))
        return line

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Go through the generator's step, with an optimiser's step at each yield."""
        recipe, processes, losses = self.recipe, self.processes, dict[str, Tensor]()
        processes.seed(recipe.seed, clock.step, processes.rank)
        rng = PointRng(recipe.seed, f"{self.generator.name} at {clock.step}", batch.ids)
        lr = recipe.optimizer.lr * optim.factor(recipe.schedule, clock)
        with processes.autocast():
            for name, loss in self.generator.step(self.parts.train(), batch, clock, rng):
                self.parts.zero_grad()
                processes.backward(loss)
                n, total = processes.average(self.parts, len(loss), (loss.detach().sum(),))
                if not total.isfinite():
                    raise TrainingStoppedError(
                        f"training diverged in epoch {clock.epoch + 1}, step {clock.step + 1}: the"
                        f" loss of '{name}' is not finite; try a lower optimizer.lr"
                    )
                optim.set_lr(self.optimizers[name], lr)
                processes.step(self.optimizers[name], self.parts[name], recipe.optimizer.clip)
                losses[name] = total / n
        # Only now: the graphs of later parts hold the buffers as they were.
        processes.share_buffers(self.parts)
        return losses

    def save(self, folder: RunFolder, epoch: int) -> None:
        """Write the generator's parts and what rebuilds them."""
        content = {
            "schema": 1,
            "generator": self.generator.dump(),
            "shape": self.points.train.shape,
            "classes": self.points.train.classes,
            "parts": self.parts.state_dict(),
        }
        write_whole(folder.path / GENERATOR, lambda file: torch.save(content, file))

    def state_dict(self) -> State:
        """Give what a resume needs."""
        return {
            "parts": self.parts.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": self.processes.scaler_state(),
            "generator": self.generator.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.parts.load_state_dict(state["parts"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.processes.load_scaler_state(state["scaler"])
        self.generator.load_state_dict(self.processes.to_device(state["generator"]))

    def record(self) -> dict[str, Any]:
        """Give what a record tells of the training."""
        train, measured = self.points.train, self.measured
        return {
            "trainer": self.generator.dump(),
            "model": {"name": self.generator.name},
            "classes": train.classes,
            "shape": train.shape,
            "parameters": sum(p.numel() for p in self.parts.parameters()),
            "data_remark": remark_of(train),
            "n_train": len(train),
            "n_heldout": len(self.points.heldout),
            "heldout_clean": rate(measured.correct, measured.n) if measured else None,
        }


def sample(generator: Generator, parts: nn.ModuleDict, n: int, classes: int, seed: int) -> Batch:
    """Draw n images of classes in turn from a generator's trained parts."""
    device = next(parts.parameters()).device
    ids = torch.arange(n, device=device)
    y = ids % classes
    with torch.no_grad():
        x = generator.sample(parts.eval(), n, y, PointRng(seed, f"{generator.name} drawn", ids))
    return Batch(x.clamp(0, 1), y, ids, torch.ones_like(ids))


def load_generator(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[Generator, nn.ModuleDict]:
    """Build a generator and its trained parts from generator.pt; nothing in the file is run."""
    content = read_plain(path)
    generator: Generator = build("generator", content["generator"])
    parts = generator.build(tuple(content["shape"]), len(content["classes"]))
    parts.load_state_dict(content["parts"])
    return generator, parts.to(device)


def generated(
    processes: Processes,
    recipe: Recipe,
    components: Components,
    generator: Generator,
    folder: RunFolder,
    n: int,
) -> Batch:
    """Train a generator on a run's own training points, in a folder inside it, and draw from it.

    It is trained by the run's schedule, once: a resumed run finds it there.
    """
    own = recipe.model_copy(update={"trainer": None, "generator": generator.dump()})
    place = RunFolder(folder.path / "generators" / digest(own.dump()))
    done = prepare(processes, own, place, resume=place.recipe.exists())
    parts = replace(components, trainer=None, generator=generator)
    work = Synthesis(processes, own, parts, place)
    run(work, processes, own, place, done, Silent())
    return sample(generator, work.parts, n, len(work.points.train.classes), recipe.seed)
