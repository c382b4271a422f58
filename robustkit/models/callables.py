"""A function of the user's own as an architecture: `module:callable`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

from torch import nn

from robustkit.errors import BadValueError, nearest
from robustkit.interfaces import Architecture
from robustkit.models.common import Normalised, Shape
from robustkit.models.loaded import first_line


@cache
def architecture(target: str) -> type[Architecture]:
    """Give the architecture named `target` that "module:callable" makes.

    It is called with the shape (C, H, W) of images and the number of classes, and gives a module
    from normalised images (N, C, H, W) to logits (N, classes). Raises BadValueError where there is
    no such callable.
    """
    make = _find(target)

    class Own(Architecture):
        """A function of the user's own, behind normalisation."""

        name: ClassVar[str] = target

        def __reduce__(self) -> tuple[Callable[[str], Architecture], tuple[str]]:
            return _named, (target,)

        def build(
            self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
        ) -> nn.Module:
            """Call the function. Raises BadValueError where it fails or gives no module."""
            call = f"{target.rpartition(':')[2]}({shape}, {classes})"
            try:
                net = make(shape, classes)
            except Exception as error:
                raise BadValueError(
                    f"architecture '{target}': {call} raises {type(error).__name__}:"
                    f" {first_line(error)}; it is called with the shape of images and the number of"
                    " classes"
                ) from error
            if not isinstance(net, nn.Module):
                raise BadValueError(
                    f"architecture '{target}': {call} gives {type(net).__name__}, not a module"
                )
            return Normalised(mean, std, net)

    return Own


def _named(target: str) -> Architecture:
    return architecture(target)()


def __getattr__(target: str) -> type[Architecture]:
    """Give architectures to the catalogue, which finds a class as an attribute of its module."""
    if ":" not in target:
        raise AttributeError(f"module '{__name__}' has no attribute '{target}'")
    return architecture(target)


def _find(target: str) -> Callable[..., Any]:
    name, _, attribute = target.partition(":")
    try:
        module = import_module(name)
    except Exception as error:
        raise BadValueError(
            f"architecture '{target}': module '{name}' does not import: {type(error).__name__}:"
            f" {first_line(error)}"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        problem = "is not callable" if found is not None else "does not exist"
        raise BadValueError(
            f"architecture '{target}': '{attribute}' {problem}{nearest(attribute, names)}"
        )
    return found
