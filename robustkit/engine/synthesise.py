"""Generators at work: trained like classifiers, drawn from afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustkit.analysis.diversity import Diversity
from robustkit.analysis.statistics import rate
from robustkit.analysis.tiles import tiles
from robustkit.catalog import installed
from robustkit.component import State
from robustkit.data.batches import DeviceImages, Share
from robustkit.data.images import remark_of
from robustkit.engine import optim
from robustkit.engine.averaging import Average
from robustkit.engine.collapse import Collapse
from robustkit.engine.loop import Progress
from robustkit.engine.points import divide
from robustkit.engine.processes import Processes
from robustkit.engine.resolve import Components
from robustkit.engine.rng import PointRng
from robustkit.engine.sampling import Trained, as_pixels
from robustkit.engine.selection import HeldOut, Measured, Selection
from robustkit.errors import BadValueError, TrainingStoppedError
from robustkit.interfaces import Batch, Clock, Generator, Images
from robustkit.models.of_generator import GeneratorClassifier, save_classifier
from robustkit.recipe import Recipe
from robustkit.records import EpochLine, RunFolder, Threat

SHOWN = 64
"""Images of one code each that TensorBoard shows, epoch by epoch."""


class Synthesis:
    """Trains a generator: see robustkit.engine.loop.Work. Each part has an optimiser of its own.

    Of a classifier that the generator trains besides, the epoch that is best on held-out points is
    kept, or the last one where the recipe selects that; of the generator itself, the last.
    """

    enough = ""

    def __init__(
        self, processes: Processes, recipe: Recipe, components: Components, folder: RunFolder
    ) -> None:
        self.processes, self.recipe = processes, recipe
        assert components.generator is not None
        self.generator: Generator = components.generator
        points = self.points = divide(components.data, recipe.fit, recipe.seed, unlabelled=True)
        if self.generator.learns_labels():
            require_labels(points.train, self.generator.name, components.data.name)
        processes.seed(recipe.seed, "weights")
        self.parts = self.generator.build(points.train.shape, len(points.train.classes))
        self.parts.to(processes.device)
        self.optimizers = {
            name: optim.optimizer(recipe.optimizer, part.parameters())
            for name, part in self.parts.items()
        }
        self.average = Average(self.parts, recipe.fit.average) if recipe.fit.average else None
        images = DeviceImages(points.train, processes.device)
        share = labelled_share(points.train, recipe.fit.labelled_share)
        self.batches = processes.batches(images, recipe.fit.batch_size, recipe.seed, share)
        self.heldout = HeldOut(points.heldout, recipe, components.attack, processes)
        last = recipe.select.metric == "last"
        self.selection = Selection("last" if last else "clean", recipe.fit.epochs)
        self.collapse = Collapse(
            points.train, self.generator.conditional, len(self.batches), recipe.seed
        )
        self.shown: Tensor | None = None

    @property
    def kept(self) -> nn.ModuleDict:
        """The parts that are measured and saved."""
        return self.average.model if self.average else self.parts

    def trained(self, epoch: int) -> Trained:
        """Give what has come out after an epoch."""
        return Trained(
            self.generator,
            self.kept,
            self.points.train.shape,
            self.points.train.classes,
            {
                "data": self.recipe.data,
                "n_train": len(self.points.train),
                "seed": self.recipe.seed,
                "epoch": epoch,
            },
        )

    def epoch(self, epoch: int, progress: Progress) -> EpochLine:
        """Show the generator every point once; measure its images, and its classifier if any."""
        began, losses, n = time.perf_counter(), dict[str, Tensor](), len(self.batches)
        epochs = self.recipe.fit.epochs
        clock = Clock(epoch, epochs, epoch * n, epochs * n)
        for i, batch in enumerate(self.batches.epoch(epoch)):
            clock = Clock(epoch, epochs, epoch * n + i, epochs * n)
            progress.step(clock)
            for name, loss in self.step(batch, clock).items():
                losses[name] = losses.get(name, 0.0) + loss / n
        means = {f"loss_{name}": float(loss) for name, loss in losses.items()}
        found, warning = self.processes.lead(lambda: self._look(epoch + 1))
        measured = self._measure(epoch + 1)
        line = EpochLine(
            epoch=epoch + 1,
            step=clock.step + 1,
            lr=self.recipe.optimizer.lr * optim.factor(self.recipe.schedule, clock),
            loss=sum(means.values()),
            heldout_accuracy=measured.accuracy if measured else None,
            heldout_loss=measured.loss if measured else None,
            seconds=round(time.perf_counter() - began, 3),
            more={**means, **found.numbers},
            warning=warning,
        )
        self.generator.end_epoch(line.model_dump(exclude={"more", "warning"}, exclude_none=True))
        return line

    def _look(self, epoch: int) -> tuple[Diversity, str | None]:
        """Draw images, and see whether they differ as real ones do."""
        drawn = self.trained(epoch).draw(self.collapse.n, self.recipe.seed)
        self.shown = drawn.x[:SHOWN]
        return self.collapse.watch(epoch, drawn)

    def _measure(self, epoch: int) -> Measured | None:
        """Measure the classifier on the held-out points, where there is one."""
        classifier = self.generator.classifier(self.kept)
        if classifier is None:
            return None
        measured = self.heldout.measure(classifier, attacked=False)
        self.selection.offer(epoch, measured)
        return measured

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Go through the generator's step, with an optimiser's step at each yield.

        Only the gradients of the part whose turn it is are computed. Gives each part's mean loss.
        """
        recipe, processes = self.recipe, self.processes
        sums = dict[str, Tensor]()
        processes.seed(recipe.seed, clock.step, processes.rank)
        rng = PointRng(recipe.seed, f"{self.generator.name} at {clock.step}", batch.ids)
        lr = recipe.optimizer.lr * optim.factor(recipe.schedule, clock)
        turns = iter(self.generator.step(self.parts.train(), batch, clock, rng))
        while True:
            # Autocast keeps copies of weights until it is left, and each turn changes some.
            with processes.autocast():
                turn = next(turns, None)
            if turn is None:
                break
            name, loss = turn
            part, optimizer = self.parts[name], self.optimizers[name]
            optimizer.zero_grad()
            processes.backward(loss, part)
            n, total = processes.average(part, len(loss), (loss.detach().sum(),))
            optim.set_lr(optimizer, lr)
            processes.step(optimizer, part, recipe.optimizer.clip)
            sums[name] = total / n
        if not torch.stack(list(sums.values())).isfinite().all():
            raise self._diverged(clock, sums)
        # Only now: the graphs of later parts hold the buffers as they were.
        processes.share_buffers(self.parts)
        if self.average:
            self.average.follow(self.parts, clock)
        return sums

    def _diverged(self, clock: Clock, losses: Mapping[str, Tensor]) -> TrainingStoppedError:
        name = next(name for name, loss in losses.items() if not loss.isfinite())
        return TrainingStoppedError(
            f"training diverged in epoch {clock.epoch + 1}, step {clock.step + 1}: the loss of"
            f" '{name}' is not finite; try a lower optimizer.lr"
        )

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """Give a grid of images, of the same codes after each epoch; one class a column."""
        assert self.shown is not None
        classes = len(self.points.train.classes) if self.generator.conditional else 0
        columns = classes if 2 <= classes <= 16 else 8
        rows = len(self.shown) // columns
        pixels = as_pixels(self.shown[: rows * columns])
        return {"samples": tiles(pixels, columns, side=32)}

    def save(self, folder: RunFolder, epoch: int) -> None:
        """Write the generator, and its classifier where this epoch's is the best so far."""
        self.trained(epoch).save(folder.generator)
        classifier = self.generator.classifier(self.kept)
        if classifier is None or self.selection.best.get("epoch") != epoch:
            return
        recipe = self.recipe
        about = {
            "run": folder.path.name,
            "title": recipe.title,
            "data": recipe.data,
            "threat": Threat.of(recipe.threat.model()).model_dump(mode="json"),
            "seed": recipe.seed,
            "epoch": epoch,
            "trainer": self.generator.dump(),
        }
        save_classifier(folder.model, classifier, self.generator, self.points.train, about)

    def state_dict(self) -> State:
        """Give what a resume needs."""
        return {
            "parts": self.parts.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": self.processes.scaler_state(),
            "generator": self.generator.state_dict(),
            "selection": self.selection.state_dict(),
            "collapse": self.collapse.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.parts.load_state_dict(state["parts"])
        if self.average:
            self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.processes.load_scaler_state(state["scaler"])
        self.generator.load_state_dict(self.processes.to_device(state["generator"]))
        self.selection.load_state_dict(state["selection"])
        self.collapse.load_state_dict(state["collapse"])

    def record(self) -> dict[str, Any]:
        """Give what a record tells of the training."""
        train, best = self.points.train, self.selection.best
        found: dict[str, Any] = {"model": {"name": self.generator.name}}
        if best:
            found = {
                "model": GeneratorClassifier(generator=self.generator).dump(),
                "best_epoch": best["epoch"],
                "heldout_clean": rate(best["correct"], best["n"]),
            }
        return {
            "trainer": self.generator.dump(),
            "classes": train.classes,
            "shape": train.shape,
            "parameters": sum(p.numel() for p in self.parts.parameters()),
            "data_remark": remark_of(train),
            "n_train": len(train),
            "n_heldout": len(self.points.heldout),
            **found,
        }


def require_labels(images: Images, generator: str, data: str) -> None:
    """Refuse images without any label, naming the generators that learn from such ones."""
    if bool((images.labels >= 0).any()):
        return
    kinds = [installed().load("generator", e.name) for e in installed().of_kind("generator")]
    others = [k.name for k in kinds if issubclass(k, Generator) and not k.learns_labels()]
    raise BadValueError(
        f"generator '{generator}' learns from labels, but no point of '{data}' has one; those that"
        f" need none: {', '.join(others)}"
    )


def labelled_share(images: Images, size: float | None) -> Share | None:
    """Let labelled points make up a share of each batch; None where all have a label, or none."""
    known = images.labels >= 0
    if size is None or known.all() or not known.any():
        return None
    return Share(known.nonzero().squeeze(1), size, "fit.labelled_share")
