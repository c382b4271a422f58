"""What generators promise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustkit.engine.rng import PointRng
from robustkit.interfaces import Generator
from robustkit.testing.bench import (
    CLASSES,
    CLOCK,
    SHAPE,
    batch_of,
    conv_points,
    ids_of,
    no_global_random_numbers,
)
from robustkit.testing.core import Check, NotApplicableError, Subject, require

LABELS = torch.tensor([0, 1, 2, 3, 0])


def _rng(n: int, seed: int = 0) -> PointRng:
    return PointRng(seed, "generator", ids_of(n))


def _start(subject: Subject) -> tuple[Generator, nn.ModuleDict]:
    generator: Generator = subject.make()
    torch.manual_seed(1)
    return generator, generator.build(SHAPE, CLASSES)


def parts_built(subject: Subject) -> None:
    """`build` gives a ModuleDict of parts with parameters; one torch seed builds one."""
    _, parts = _start(subject)
    require(isinstance(parts, nn.ModuleDict), f"`build` gives {type(parts).__name__}")
    for name, part in parts.items():
        require(any(True for _ in part.parameters()), f"the part '{name}' has no parameters")
    pairs = zip(parts.parameters(), _start(subject)[1].parameters(), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), "one seed builds two networks")


def steps_per_part(subject: Subject) -> None:
    """`step` yields (part, loss (N,)), and the loss has gradients at that part."""
    generator, parts = _start(subject)
    batch = batch_of(*conv_points())
    seen = 0
    for name, loss in generator.step(parts.train(), batch, CLOCK, _rng(len(batch))):
        seen += 1
        require(name in parts, f"`step` yields the part '{name}', which `build` does not give")
        shape = tuple(loss.shape)
        require(shape == (len(batch),), f"the loss of '{name}' is {shape}, not ({len(batch)},)")
        require(loss.isfinite().all(), f"the loss of '{name}' is not finite")
        parts.zero_grad()
        require(loss.requires_grad, f"the loss of '{name}' carries no graph")
        loss.mean().backward()
        reached = any(p.grad is not None and p.grad.any() for p in parts[name].parameters())
        require(reached, f"the loss of '{name}' has no gradient at its parameters")
    require(seen, "`step` yields nothing")


def samples_are_images(subject: Subject) -> None:
    """`sample` gives finite images (n, C, H, W) in [0, 1], with labels and without."""
    generator, parts = _start(subject)
    for y in (LABELS, None):
        with torch.no_grad():
            x = generator.sample(parts.eval(), len(LABELS), y, _rng(len(LABELS)))
        shape = (len(LABELS), *SHAPE)
        require(tuple(x.shape) == shape, f"samples have shape {tuple(x.shape)}, not {shape}")
        require(x.is_floating_point(), f"samples are {x.dtype}, not floats")
        require(((x >= 0) & (x <= 1)).all(), "some pixels lie outside [0, 1]")


def own_random_numbers(subject: Subject) -> None:
    """Samples come from the rng given: it decides them, and the global one is not used."""
    generator, parts = _start(subject)

    def draw(seed: int) -> Tensor:
        with torch.no_grad(), no_global_random_numbers():
            return generator.sample(parts.eval(), len(LABELS), LABELS, _rng(len(LABELS), seed))

    require(torch.equal(draw(0), draw(0)), "one rng gives two draws")
    require(not torch.equal(draw(0), draw(1)), "another rng gives the same draw")


def classifier_gives_logits(subject: Subject) -> None:
    """`classifier` gives None, or a module from images to logits (N, classes)."""
    generator, parts = _start(subject)
    classifier = generator.classifier(parts)
    if classifier is None:
        raise NotApplicableError("it trains no classifier")
    with torch.no_grad():
        logits = classifier.eval()(conv_points()[0])
    require(logits.shape[1:] == (CLASSES,), f"the logits have shape {tuple(logits.shape)}")


CHECKS = Check.all(
    parts_built,
    steps_per_part,
    samples_are_images,
    own_random_numbers,
    classifier_gives_logits,
)
