"""A model out of a file, and what its user says of it besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from robustkit.errors import BadValueError
from robustkit.interfaces import Architecture

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class LoadedModel:
    """A model and what is known of it."""

    module: nn.Module
    """In eval mode: images (N, C, H, W) in [0, 1] to logits."""
    architecture: dict[str, Any]
    """The table that builds it, or only a name: of the format of a file that is a program."""
    shape: Shape
    classes: tuple[str, ...]
    record: dict[str, Any] = field(default_factory=dict)
    again: Callable[[], nn.Module] | None = None
    """Loads the module once more, in another process, too."""


@dataclass(frozen=True)
class Given:
    """What a user says of a file: all that files other than robustkit's own leave open."""

    architecture: Architecture | None = None
    """What bare weights belong to, or the user's own code that a file may name."""
    shape: Shape | None = None
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Normalisation (C,) of images in [0, 1] that bare weights were trained with."""
    unsafe: bool = False
    """Whether pickles may run whatever they hold."""

    def images(self, path: Path, what: str) -> tuple[Shape, tuple[str, ...]]:
        """Give shape and classes. Raises BadValueError where the user does not say them."""
        if self.shape is None:
            raise BadValueError(
                f"model file '{path}' is {what}, which does not say what images it is for: evaluate"
                " it with --dataset NAME"
            )
        return self.shape, self.classes

    def none_of_weights(self, path: Path, what: str) -> None:
        """Raise BadValueError where something is said that only bare weights leave open."""
        for flag, value in (
            ("--arch", self.architecture),
            ("--mean", self.mean),
            ("--std", self.std),
        ):
            if value is not None:
                raise BadValueError(
                    f"model file '{path}' is {what}: {flag} is for bare weights only"
                )


def first_line(error: BaseException) -> str:
    """Give the first line of an error's message, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
