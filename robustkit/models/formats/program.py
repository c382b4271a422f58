"""A model that comes as a whole program, with its weights and without its Python."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from robustkit.models.loaded import Given, LoadedModel


class Program(nn.Module):
    """A program as a module: images (N, C, H, W) in [0, 1] to logits, in the mode it was saved in.

    It has no modes and is not trained. Its digest tells it from others of the same weights.
    """

    def __init__(self, program: nn.Module, form: str, data: bytes) -> None:
        super().__init__()
        self.program, self.form = program, form
        self.digest = hashlib.sha256(data).hexdigest()[:16]
        self.requires_grad_(False)
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.program(x)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Stay as it is: an exported program refuses other modes."""
        return self

    def extra_repr(self) -> str:
        return f"{self.form} {self.digest}"


def loaded(path: Path, program: nn.Module, form: str, data: bytes, given: Given) -> LoadedModel:
    """Give a program as a model for the images that the user says."""
    shape, classes = given.images(path, f"a program of {form}")
    return LoadedModel(Program(program, form, data), {"name": form}, shape, classes)
