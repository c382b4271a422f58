"""What trainers promise; asked on a small network and a kit of the engine's kind."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robustkit.component import Component
from robustkit.engine.victim import frozen
from robustkit.interfaces import Batch, Terms, Trainer
from robustkit.testing.bench import (
    CLASSES,
    CLOCK,
    THREAT,
    BenchKit,
    batch_of,
    conv_model,
    conv_points,
    left_alone,
    same,
)
from robustkit.testing.core import Check, Subject, require


def _start(subject: Subject) -> tuple[Trainer, nn.Module, Batch]:
    """Give the trainer, prepared; a model in training mode, without dropout; and a batch."""
    trainer: Trainer = subject.make()
    for _, part in trainer.tree():
        part.prepare(BenchKit())
    model = conv_model().train()
    for layer in model.children():
        layer.train(not isinstance(layer, nn.Dropout))
    return trainer, model, batch_of(*conv_points())


def _moved(trainer: Trainer, model: nn.Module, batch: Batch) -> Batch:
    """Run `adversary` as the engine does by default: frozen, and in eval mode."""
    with frozen(model):
        return trainer.adversary(model, batch, CLOCK)


def _states(component: Component) -> list[object]:
    inner = (part for _, part in component.nested())
    return [component.state_dict(), *(state for part in inner for state in _states(part))]


def replays_counted(subject: Subject) -> None:
    """`replays` is a whole number of at least 1."""
    trainer, _, _ = _start(subject)
    right = isinstance(trainer.replays, int) and trainer.replays >= 1
    require(right, f"`replays` is {trainer.replays!r}, not a number from 1 on")


def terms_per_point(subject: Subject) -> None:
    """`objective` gives loss (N,), logits (N, classes), and further terms, each a point a row."""
    trainer, model, batch = _start(subject)
    terms = trainer.objective(model, _moved(trainer, model, batch), CLOCK)
    require(isinstance(terms, Terms), f"`objective` gives {type(terms).__name__}, not Terms")
    n = len(batch)
    require(terms.loss.shape == (n,), f"the loss has shape {tuple(terms.loss.shape)}, not ({n},)")
    shape = tuple(terms.logits.shape)
    require(shape == (n, CLASSES), f"the logits have shape {shape}, not ({n}, {CLASSES})")
    for name, value in {"loss": terms.loss, "logits": terms.logits, **terms.more}.items():
        require(isinstance(value, Tensor), f"the term '{name}' is no tensor")
        require(len(value) == n, f"the term '{name}' has {len(value)} rows for {n} points")
        require(value.isfinite().all(), f"the term '{name}' is not finite")


def loss_reaches_parameters(subject: Subject) -> None:
    """The loss has gradients at the model's parameters."""
    trainer, model, batch = _start(subject)
    terms = trainer.objective(model, _moved(trainer, model, batch), CLOCK)
    require(terms.loss.requires_grad, "the loss carries no graph")
    terms.loss.mean().backward()
    reached = any(p.grad is not None and p.grad.any() for p in model.parameters())
    require(reached, "no parameter gets a gradient")


def objective_repeatable(subject: Subject) -> None:
    """`objective` gives the same when asked again of the same model, and changes no state."""
    trainer, model, batch = _start(subject)
    moved = _moved(trainer, model, batch)
    before = _states(trainer)
    first = trainer.objective(copy.deepcopy(model), moved, CLOCK)
    require(same(_states(trainer), before), "`objective` changes the trainer's state")
    second = trainer.objective(copy.deepcopy(model), moved, CLOCK)
    require(same(first.loss.detach(), second.loss.detach()), "`objective` called twice differs")


def objective_leaves_model(subject: Subject) -> None:
    """`objective` leaves parameters, gradients and modes as they were; buffers may move."""
    trainer, model, batch = _start(subject)
    moved = _moved(trainer, model, batch)
    with left_alone(model, buffers=False):
        trainer.objective(model, moved, CLOCK)


def adversary_leaves_model(subject: Subject) -> None:
    """`adversary` leaves the model and the batch as they were."""
    trainer, model, batch = _start(subject)
    before = {n: None if value is None else value.clone() for n, value in vars(batch).items()}
    with frozen(model), left_alone(model):
        trainer.adversary(model, batch, CLOCK)
    require(same(vars(batch), before), "`adversary` changes the batch in place")


def adversary_keeps_points(subject: Subject) -> None:
    """`adversary` keeps labels, ids, sources, and the images' shape and type; only pixels move."""
    trainer, model, batch = _start(subject)
    moved = _moved(trainer, model, batch)
    for name in ("y", "ids", "source"):
        require(same(getattr(moved, name), getattr(batch, name)), f"`adversary` changes {name}")
    if moved.clean is not None:
        require(same(moved.clean, batch.x), "`clean` is not where the points were")
    require(moved.x.shape == batch.x.shape, f"x comes back as {tuple(moved.x.shape)}")
    require(moved.x.dtype == batch.x.dtype, f"x comes back as {moved.x.dtype}")
    require(not moved.x.requires_grad, "x comes back with a graph")


def adversary_inside_threat(subject: Subject) -> None:
    """`adversary` stays in the ball and the box of the kit's threat."""
    trainer, model, batch = _start(subject)
    moved, threat = _moved(trainer, model, batch), THREAT
    over = float((threat.size(moved.x - batch.x) - threat.eps).max())
    require(over <= threat.tolerance, f"{threat}: a point is {over:.3g} outside")
    over = float((threat.clamp(moved.x) - moved.x).abs().max())
    require(over <= threat.tolerance, f"a pixel is {over:.3g} outside [0, 1]")


def own_random_numbers(subject: Subject) -> None:
    """Random numbers come from the kit's rng: a step does not depend on torch's global seed."""
    found = []
    for seed in (0, 1):
        trainer, model, batch = _start(subject)
        torch.manual_seed(seed)
        moved = _moved(trainer, model, batch)
        found.append((moved.x, trainer.objective(model, moved, CLOCK).loss.detach()))
    require(same(found[0], found[1]), "a step depends on torch's global seed")


CHECKS = Check.all(
    replays_counted,
    terms_per_point,
    loss_reaches_parameters,
    objective_repeatable,
    objective_leaves_model,
    adversary_leaves_model,
    adversary_keeps_points,
    adversary_inside_threat,
    own_random_numbers,
)
