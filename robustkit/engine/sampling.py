"""Trained generators: their file, and images drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from robustkit.catalog import build
from robustkit.data.images import Pixels
from robustkit.engine.identity import hash_module
from robustkit.engine.journal import read_plain
from robustkit.engine.rng import PointRng
from robustkit.errors import BadValueError, RobustkitError
from robustkit.files import write_whole
from robustkit.interfaces import Batch, Generator
from robustkit.models.formats.native import Side
from robustkit.models.formats.weights import check_fit
from robustkit.models.loaded import first_line

SCHEMA = 1
BLOCK = 256
"""Images drawn at a time: always as many, for sums in a batch of another size differ in their last
bits, and so would images."""


class GeneratorFile(BaseModel):
    """What generator.pt holds."""

    model_config = ConfigDict(frozen=True, strict=True, arbitrary_types_allowed=True)
    schema_version: int = Field(default=SCHEMA, alias="schema")
    generator: dict[str, Any]
    """The table that the catalogue builds the generator from."""
    shape: tuple[Side, Side, Side]
    classes: tuple[str, ...]
    """None where no image had a label."""
    parts: dict[str, Tensor]
    record: dict[str, Any] = Field(default_factory=dict)
    """What it was trained on: run, data, n_train, seed, epoch; plain as JSON."""


@dataclass(frozen=True)
class Trained:
    """A generator with its trained parts, in eval mode on some device."""

    generator: Generator
    parts: nn.ModuleDict
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    record: dict[str, Any]

    @property
    def hash(self) -> str:
        """8 hexadecimal digits of the parts' weights."""
        return hash_module(self.parts)[:8]

    def rng(self, seed: int, ids: Tensor, name: str = "drawn") -> PointRng:
        """Give the random numbers of the images of ids (n,)."""
        return PointRng(seed, f"{self.generator.name} {name}", ids)

    def labels(self, ids: Tensor) -> Tensor:
        """Say of which class (n,) the images of ids (n,) are: each in turn; -1 is unknown."""
        if not self.generator.conditional:
            return torch.full_like(ids, -1)
        return ids % len(self.classes)

    def blocks(self, n: int, seed: int) -> Iterator[Batch]:
        """Draw images 0 to n - 1, some at a time; x is in [0, 1].

        An image is a function of its number and the seed alone.
        """
        device = next(self.parts.parameters()).device
        for start in range(0, n, BLOCK):
            ids = torch.arange(start, start + BLOCK, device=device)
            y, rng = self.labels(ids), self.rng(seed, ids)
            with torch.no_grad():
                asked = y if self.generator.conditional else None
                x = self.generator.sample(self.parts.eval(), BLOCK, asked, rng).clamp(0, 1)
            left = slice(min(BLOCK, n - start))
            yield Batch(x[left], y[left], ids[left], torch.ones_like(ids)[left])

    def walk(self, rows: int, steps: int, seed: int) -> Batch:
        """Draw images (rows * steps) of codes on straight ways, a row from one code to another.

        A row's images are of one class. Raises BadValueError for a generator without codes.
        """
        if type(self.generator).codes is Generator.codes:
            raise BadValueError(f"generator '{self.generator.name}' has no codes to walk through")
        device = next(self.parts.parameters()).device
        ends = torch.arange(2 * rows, device=device)
        codes = self.generator.codes(2 * rows, self.rng(seed, ends, "walk"))
        share = torch.linspace(0, 1, steps, device=device).repeat(rows)
        share = share.view(-1, *[1] * (codes.dim() - 1))
        first, last = (part.repeat_interleave(steps, 0) for part in codes.chunk(2))
        y = self.labels(ends[:rows]).repeat_interleave(steps)
        asked = y if self.generator.conditional else None
        with torch.no_grad():
            x = self.generator.decode(self.parts.eval(), first.lerp(last, share), asked)
        return Batch(x.clamp(0, 1), y, torch.arange(len(y), device=device), torch.ones_like(y))

    def draw(self, n: int, seed: int) -> Batch:
        """Draw images 0 to n - 1 at once."""
        blocks = list(self.blocks(n, seed))
        tensors = ([getattr(b, name) for b in blocks] for name in ("x", "y", "ids", "source"))
        return Batch(*map(torch.cat, tensors))

    def save(self, path: Path) -> None:
        """Write the file from which `load_generator` builds all of this again."""
        content = {
            "schema": SCHEMA,
            "generator": self.generator.dump(),
            "shape": self.shape,
            "classes": self.classes,
            "parts": {
                name: w.detach().cpu().clone() for name, w in self.parts.state_dict().items()
            },
            "record": self.record,
        }
        write_whole(path, lambda file: torch.save(content, file))


def as_pixels(x: Tensor) -> Pixels:
    """Bring images (n, C, H, W) in [0, 1] to uint8."""
    return (255 * x).round().to(torch.uint8).cpu().numpy()


def load_generator(path: Path, device: torch.device | str = "cpu") -> Trained:
    """Build a generator and its trained parts from their file; nothing in the file is run.

    Raises BadValueError for a file that is missing, damaged, foreign, of a newer schema, or whose
    weights do not fit.
    """
    if not path.exists():
        raise BadValueError(f"there is no generator '{path}'")
    table = read_plain(path)
    if "generator" not in table:
        raise BadValueError(f"'{path}' holds no generator")
    try:
        content = GeneratorFile.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadValueError(f"'{path}' is damaged: {place}: {first['msg']}") from None
    try:
        generator: Generator = build("generator", content.generator)
        with torch.random.fork_rng(devices=[]):
            parts = generator.build(content.shape, len(content.classes))
    except RobustkitError as error:
        raise BadValueError(f"'{path}': {error}") from None
    except Exception as error:
        raise BadValueError(
            f"'{path}': its generator does not build: {first_line(error)}"
        ) from None
    if generator.learns_labels() and not content.classes:
        raise BadValueError(f"'{path}' is damaged: classes: '{generator.name}' needs some")
    check_fit(path, content.parts, parts.state_dict(), generator.name)
    parts.load_state_dict(content.parts)
    parts = parts.to(device).eval()
    return Trained(generator, parts, content.shape, content.classes, content.record)
