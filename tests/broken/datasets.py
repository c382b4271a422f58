"""Broken data sets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from broken import breaks
from robustkit import Dataset, Images


class Few:
    """Five images of two classes, one unlabelled."""

    def __init__(self) -> None:
        self.shape: tuple[int, int, int] = (1, 3, 2)
        self.classes: tuple[str, ...] = ("left", "right")
        self.labels = torch.tensor([0, 1, -1, 1, 0])
        self.x = torch.arange(30, dtype=torch.uint8).view(5, 1, 3, 2)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, ids: Tensor) -> Tensor:
        return self.x[ids]


class HealthyData(Dataset):
    """Ten images that need no file."""

    name = "healthy"

    def split(self, part: Literal["train", "test"]) -> Images:
        images = Few()
        self.after(images, part)
        return images

    def after(self, images: Any, part: str) -> None:
        pass


@breaks("opens-or-refuses", "raises FileNotFoundError")
class MissingFile(HealthyData):
    def after(self, images: Any, part: str) -> None:
        Path("/nowhere/at/all").read_bytes()


@breaks("opens-or-refuses", "raises OSError")
class Online(HealthyData):
    def after(self, images: Any, part: str) -> None:
        with socket.socket() as line:
            line.connect(("127.0.0.1", 9))


@breaks("images-in-bytes", "not uint8")
class Floats(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.x = images.x / 255


@breaks("images-in-bytes", "two images are")
class ChannelsLast(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.x = images.x.movedim(1, 3)


@breaks("images-in-bytes", "no images")
class Empty(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.x = images.x[:0]


@breaks("labels-in-range", "outside")
class ThirdClass(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.labels[0] = 2


@breaks("labels-in-range", "int32")
class ShortLabels(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.labels = images.labels.int()


@breaks("labels-in-range", "for 5 images")
class LabelMissing(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.labels = images.labels[:4]


@breaks("taken-in-any-order", "another order")
class Sorts(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.take = lambda ids: images.x[ids.sort().values]


@breaks("taken-in-any-order", "no ids")
class NeverEmpty(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.take = lambda ids: images.x[ids] if len(ids) else images.x[:1]


@breaks("parts-alike", "different classes")
class OtherClasses(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.classes = ("left", part)


@breaks("parts-alike", "shapes")
class OtherShape(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.shape = (1, 3, 2) if part == "test" else (1, 2, 3)


@breaks("parts-alike", "one name")
class TwiceTheSame(HealthyData):
    def after(self, images: Any, part: str) -> None:
        images.classes = ("same", "same")
