"""What architectures promise, at several sizes of images and numbers of classes."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from robustkit.interfaces import Architecture
from robustkit.testing.bench import same
from robustkit.testing.core import REFUSED, Check, NotApplicableError, Subject, attempt, require

Shape = tuple[int, int, int]
SHAPES: tuple[Shape, ...] = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 47))
POINTS = 4


def _build(
    subject: Subject, shape: Shape, classes: int, *, mean: float = 0.0, std: float = 1.0
) -> nn.Module:
    """Build with a fixed seed; further channels have other means and deviations."""
    architecture: Architecture = subject.make()
    torch.manual_seed(1)
    channels = range(shape[0])
    means, stds = [mean * (1 + c) for c in channels], [std / (1 + 0.1 * c) for c in channels]
    return architecture.build(shape, classes, means, stds).eval()


def _images(shape: Shape) -> Tensor:
    return torch.rand((POINTS, *shape), generator=torch.Generator().manual_seed(2))


def _taken(subject: Subject, classes: int = 10) -> tuple[nn.Module, Shape]:
    """Give the model for the smallest images that the architecture takes."""
    for shape in SHAPES:
        model = attempt(f"the shape {shape}", _build, subject, shape, classes)
        if model is not REFUSED:
            return model, shape
    raise NotApplicableError("it takes none of the sizes tried")


def logits_for_any_images(subject: Subject) -> None:
    """Grey and colour images of any size, two classes or ten, give finite logits (N, classes)."""
    taken = 0
    for shape in SHAPES:
        for classes in (2, 10):
            case = f"images {shape}, {classes} classes"
            model = attempt(case, _build, subject, shape, classes)
            if model is REFUSED:
                continue
            taken += 1
            with torch.no_grad():
                logits = model(_images(shape))
            right = tuple(logits.shape) == (POINTS, classes)
            require(right, f"{case}: the logits have shape {tuple(logits.shape)}")
            require(logits.dtype == torch.float32, f"{case}: the logits are {logits.dtype}")
            require(logits.isfinite().all(), f"{case}: the logits are not finite")
    require(taken, f"none of the sizes is taken: {', '.join(map(str, SHAPES))}")


def head_of_features(subject: Subject) -> None:
    """Where a model has `features` and `head`, `head(features(x))` is the model."""
    model, shape = _taken(subject)
    features, head = getattr(model, "features", None), getattr(model, "head", None)
    if features is None and head is None:
        raise NotApplicableError("it has no `features` and `head`")
    require(callable(features) and callable(head), "it has one of `features` and `head` alone")
    with torch.no_grad():
        x = _images(shape)
        require(
            torch.allclose(head(features(x)), model(x), atol=1e-5),  # type: ignore[misc]
            "`head(features(x))` is not the model; attacks on features would miss a part",
        )


def gradients_reach_images(subject: Subject) -> None:
    """Every image gets a finite gradient that is not zero."""
    model, shape = _taken(subject)
    x = _images(shape).requires_grad_()
    logits = model(x)
    require(logits.requires_grad, "the logits carry no graph to the images")
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x, allow_unused=True)
    require(gradient is not None, "the logits carry no graph to the images")
    require(gradient.isfinite().all(), "some gradients are not finite")
    require(gradient.flatten(1).any(1).all(), "an image has no gradient: attacks would see nothing")


def eval_deterministic(subject: Subject) -> None:
    """In eval mode the same images give the same logits, and the model's buffers stay."""
    model, shape = _taken(subject)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        first, second = model(_images(shape)), model(_images(shape))
    require(torch.equal(first, second), "two passes in eval mode differ")
    require(same(dict(model.named_buffers()), before), "a pass in eval mode changes buffers")


def points_not_mixed(subject: Subject) -> None:
    """In eval mode an image's logits do not depend on the others of the batch."""
    model, shape = _taken(subject)
    x = _images(shape)
    with torch.no_grad():
        together = model(x)
        for i in range(POINTS):
            alone = model(x[i : i + 1])
            close = torch.allclose(alone[0], together[i], rtol=1e-3, atol=1e-4)
            require(close, "an image's logits are others alone than in a batch")


def weights_survive(subject: Subject) -> None:
    """The state dict loads with weights_only and makes another instance the same model."""
    model, shape = _taken(subject)
    architecture: Architecture = subject.make()
    torch.manual_seed(99)
    other = architecture.build(shape, 10, [0.5] * shape[0], [0.5] * shape[0]).eval()
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    other.load_state_dict(torch.load(saved, weights_only=True))
    with torch.no_grad():
        x = _images(shape)
        require(torch.equal(other(x), model(x)), "the loaded model gives other logits")


def build_seeded(subject: Subject) -> None:
    """The same torch seed builds the same weights, another one others."""
    model, shape = _taken(subject)
    again = _build(subject, shape, 10)
    require(same(model.state_dict(), again.state_dict()), "one seed builds two models")
    architecture: Architecture = subject.make()
    torch.manual_seed(99)
    other = architecture.build(shape, 10, [0.0] * shape[0], [1.0] * shape[0])
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    require(not all(torch.equal(a, b) for a, b in pairs), "the seed does not matter")


def normalises_inside(subject: Subject) -> None:
    """The model of `mean` and `std` does on x what that of 0 and 1 does on (x - mean) / std."""
    plain, shape = _taken(subject)
    model = _build(subject, shape, 10, mean=0.2, std=0.3)
    channels = torch.arange(shape[0]).view(1, -1, 1, 1)
    x = _images(shape)
    # `plain` itself divides by the deviations of `_build`, of which 0.3 is a share.
    moved = (x - 0.2 * (1 + channels)) / 0.3
    with torch.no_grad():
        close = torch.allclose(model(x), plain(moved), rtol=1e-3, atol=1e-3)
    require(close, "`mean` and `std` are not what the model normalises its images with")


CHECKS = Check.all(
    logits_for_any_images,
    head_of_features,
    gradients_reach_images,
    eval_deterministic,
    points_not_mixed,
    weights_survive,
    build_seeded,
    normalises_inside,
)
