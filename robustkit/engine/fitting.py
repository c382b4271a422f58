"""A trainer at work on a model: the step, the epoch, and what is remembered between them."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.analysis.statistics import rate
from robustkit.component import Component, State
from robustkit.data.augment import Augmentation
from robustkit.data.batches import Batches, DeviceImages
from robustkit.data.images import remark_of
from robustkit.data.mixture import Mixture
from robustkit.engine import optim
from robustkit.engine.averaging import Average
from robustkit.engine.computing import adapt
from robustkit.engine.generated import Pool, pool, wanted
from robustkit.engine.kit import TrainingKit
from robustkit.engine.loop import Progress, Silent
from robustkit.engine.points import divide
from robustkit.engine.presenting import Presenting
from robustkit.engine.processes import Processes
from robustkit.engine.resolve import Components
from robustkit.engine.selection import HeldOut, Selection
from robustkit.engine.victim import frozen
from robustkit.engine.workshop import Workshop
from robustkit.errors import BadValueError, BrokenPluginError, TrainingStoppedError
from robustkit.interfaces import Batch, Clock, Terms, Trainer, hard_labels
from robustkit.models.files import save_model
from robustkit.recipe import Recipe
from robustkit.records import EpochLine, RunFolder, Threat


class Fitting:
    """Trains a classifier: see robustkit.engine.loop.Work."""

    def __init__(
        self,
        processes: Processes,
        recipe: Recipe,
        components: Components,
        folder: RunFolder,
        progress: Progress | None = None,
    ) -> None:
        self.processes, self.recipe, self.components = processes, recipe, components
        points = self.points = divide(components.data, recipe.fit, recipe.seed)
        processes.seed(recipe.seed, "weights")
        self.model = components.model.build(
            points.train.shape, len(points.train.classes), points.mean, points.std
        ).to(processes.device)
        if recipe.fit.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = optim.optimizer(recipe.optimizer, self.model.parameters())
        self.average = Average(self.model, recipe.fit.average) if recipe.fit.average else None
        adapt(self.model, recipe.fit, processes.device)
        self.heldout = HeldOut(points.heldout, recipe, components.attack, processes)
        self.selection = Selection(recipe.select.metric, recipe.fit.epochs)
        assert components.trainer is not None
        self.trainer: Trainer = components.trainer
        self.parts = dict(self.trainer.tree())
        images, share = DeviceImages(points.train, processes.device), None
        workshop = Workshop(processes, recipe, folder, Fitting, progress or Silent())
        self.pool = self._generated(self._kit(images, workshop))
        if self.pool:
            images = Mixture(images, self.pool.images, self.pool.record.share)
            share = images.share
            both = f"{len(points.train)} real points and {self.pool.record.n} generated ones"
            workshop.begin(f"{self.trainer.name} on {both}: {self.pool.record.path}")
        size, seed = recipe.fit.batch_size, recipe.seed
        self.batches: Batches = processes.batches(images, size, seed, share)
        self.kit = self._kit(images, workshop)
        for part in self.parts.values():
            part.prepare(self.kit)
        self.enough = ""

    def _generated(self, kit: TrainingKit) -> Pool | None:
        found = wanted(self.recipe, self.trainer, kit)
        return pool(found, self.points.train) if found else None

    def _kit(self, images: DeviceImages, workshop: Workshop) -> TrainingKit:
        recipe = self.recipe
        augmentation = Augmentation(recipe.fit.augment, self.points.mean)
        self.presenting = Presenting(
            recipe.fit, images, augmentation, recipe.seed, self.trainer.replays
        )
        return TrainingKit(
            self.points,
            self.presenting,
            recipe.threat.model(),
            recipe.seed,
            workshop,
            self.processes.totals,
        )

    @property
    def kept(self) -> nn.Module:
        """The model that is measured and saved."""
        return self.average.model if self.average else self.model

    def epoch(self, epoch: int, progress: Progress) -> EpochLine:
        """Train on every point (`replays` times), then measure the held-out ones."""
        began, totals = time.perf_counter(), torch.zeros(3, device=self.processes.device)
        replays, epochs = self.trainer.replays, self.recipe.fit.epochs
        steps = len(self.batches) * replays
        clock = Clock(epoch, epochs, epoch * steps, epochs * steps)
        for i, batch in enumerate(self.batches.epoch(epoch)):
            batch = self.presenting(batch, epoch, i)
            for replay in range(replays):
                clock = Clock(epoch, epochs, epoch * steps + i * replays + replay, epochs * steps)
                progress.step(clock)
                totals += self.step(batch, clock)
        if not all(weight.isfinite().all() for weight in self.model.state_dict().values()):
            raise self._diverged(clock, "a weight")
        n, loss, hits = totals.tolist()
        line = self._measure(epoch + 1).model_copy(
            update={
                "step": clock.step + 1,
                "loss": loss / n,
                "train_accuracy": hits / n,
                "seconds": round(time.perf_counter() - began, 3),
            }
        )
        metrics = line.model_dump(exclude={"more"}, exclude_none=True)
        for part in self.parts.values():
            part.end_epoch(metrics)
        self.enough = self.trainer.enough(metrics)
        return line

    def step(self, batch: Batch, clock: Clock) -> Tensor:
        """Move the points and take an optimiser's step there; give points, loss, hits, summed."""
        recipe, model, processes = self.recipe, self.model, self.processes
        processes.seed(recipe.seed, clock.step, processes.rank)
        lr = recipe.optimizer.lr * optim.factor(recipe.schedule, clock)
        optim.set_lr(self.optimizer, lr)
        with processes.autocast():
            with frozen(model, training=recipe.fit.adversary_mode == "train"):
                batch = self.trainer.adversary(model, batch, clock)
            terms = self._checked(self.trainer.objective(model.train(), batch, clock), batch)
        self.optimizer.zero_grad()
        processes.backward(terms.loss)
        hits = (terms.logits.argmax(1) == hard_labels(batch.y)).sum()
        totals = processes.average(model, len(batch), (terms.loss.detach().sum(), hits))
        if not totals[1].isfinite():
            raise self._diverged(clock, "the loss")
        stepped = processes.step(self.optimizer, model, recipe.optimizer.clip)
        processes.share_buffers(model)
        if self.average and stepped:
            self.average.follow(model, clock)
        self._observe(batch, terms)
        return totals

    def _checked(self, terms: Terms, batch: Batch) -> Terms:
        if terms.loss.shape != (len(batch),) or len(terms.logits) != len(batch):
            raise BrokenPluginError(
                f"trainer '{self.trainer.name}' gave a loss {tuple(terms.loss.shape)} and logits"
                f" {tuple(terms.logits.shape)} for {len(batch)} points; one of each a point is due"
            )
        return terms

    def _observe(self, batch: Batch, terms: Terms) -> None:
        """Tell those components that listen what all processes saw."""
        observers = [
            part for part in self.parts.values() if type(part).observe is not Component.observe
        ]
        if not observers:
            return
        gather = self.processes.gather
        tensors = {name: tensor for name, tensor in vars(batch).items() if tensor is not None}
        whole = Batch(**{name: gather(tensor) for name, tensor in tensors.items()})
        more = {name: gather(tensor.detach()) for name, tensor in terms.more.items()}
        seen = Terms(gather(terms.loss.detach()), gather(terms.logits.detach()), more)
        for part in observers:
            part.observe(whole, seen)

    def _measure(self, epoch: int) -> EpochLine:
        select = self.recipe.select
        attacked = epoch % select.every == 0 or epoch == self.recipe.fit.epochs
        with torch.compiler.set_stance("force_eager") if self.recipe.fit.compile else nullcontext():
            measured = self.heldout.measure(self.kept, attacked=attacked)
        self.selection.watch(epoch, measured)
        if attacked:
            self.selection.offer(epoch, measured)
        return EpochLine(
            epoch=epoch,
            step=0,
            lr=self.optimizer.param_groups[0]["lr"],
            loss=0.0,
            train_accuracy=0.0,
            heldout_accuracy=measured.accuracy,
            heldout_adversarial=measured.adversarial,
            heldout_loss=measured.loss,
            heldout_balanced=measured.balanced,
            heldout_adversarial_balanced=measured.balanced_adversarial,
        )

    def _diverged(self, clock: Clock, what: str) -> TrainingStoppedError:
        advice = ["a lower optimizer.lr"]
        if self.recipe.optimizer.clip is None:
            advice.append("optimizer.clip=1")
        if self.recipe.fit.precision != "32":
            advice.append("fit.precision=32")
        return TrainingStoppedError(
            f"training diverged in epoch {clock.epoch + 1}, step {clock.step + 1}: {what} is not"
            f" finite; try {' or '.join(advice)}"
        )

    def pictures(self) -> dict[str, Any]:
        """Give none."""
        return {}

    def save(self, folder: RunFolder, epoch: int) -> None:
        """Write the model where this epoch is the best so far."""
        if self.selection.best.get("epoch") != epoch:
            return
        recipe, points = self.recipe, self.points
        save_model(
            folder.model,
            self.kept,
            self.components.model,
            points.train.shape,
            points.train.classes,
            points.mean,
            points.std,
            {
                "run": folder.path.name,
                "title": recipe.title,
                "data": recipe.data,
                "threat": Threat.of(recipe.threat.model()).model_dump(mode="json"),
                "seed": recipe.seed,
                "epoch": epoch,
                "trainer": recipe.trainer,
            },
        )

    def state_dict(self) -> State:
        """Give what a resume needs; the weights of the best epoch are in model.pt."""
        states = {path: part.state_dict() for path, part in self.parts.items()}
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.processes.scaler_state(),
            "parts": {path: state for path, state in states.items() if state},
            "selection": self.selection.state_dict(),
            "generated": self.pool.record.digest if self.pool else "",
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave. Raises BadValueError for other generated points."""
        if self.pool and (then := state.get("generated")) != (now := self.pool.record.digest):
            raise BadValueError(
                f"'{self.pool.record.path}' has changed since the run began: its digest is {now},"
                f" and was {then}; bring the file back, or give another --out"
            )
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.processes.load_scaler_state(state["scaler"])
        for path, part_state in state["parts"].items():
            self.parts[path].load_state_dict(self.processes.to_device(part_state))
        self.selection.load_state_dict(state["selection"])

    def record(self) -> dict[str, Any]:
        """Give what a record tells of the training."""
        train, best, attack = self.points.train, self.selection.best, self.components.attack
        found: dict[str, Any] = {}
        if best:
            found = {
                "best_epoch": best["epoch"],
                "heldout_clean": rate(best["correct"], best["n"]),
                "heldout_adversarial": rate(best["robust"], best["attacked"]),
            }
        steps = getattr(attack, "steps", None)
        return {
            "trainer": self.trainer.dump(),
            "model": self.components.model.dump(),
            "classes": train.classes,
            "shape": train.shape,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "data_remark": remark_of(train),
            "n_train": len(train),
            "n_heldout": len(self.points.heldout),
            "generated": self.pool.record if self.pool else None,
            "selected_by": attack.name if steps is None else f"{attack.name}-{steps}",
            **found,
        }
