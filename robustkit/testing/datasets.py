"""What data sets promise; one that needs files may refuse in one line to open."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from robustkit.errors import RobustkitError
from robustkit.interfaces import Dataset, Images
from robustkit.testing.core import Check, NotApplicableError, Subject, attempt, require

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")


@contextmanager
def _offline() -> Iterator[None]:
    """Keep a check from downloading: no connection is made inside."""

    def refuse(*_: Any) -> None:
        raise OSError("contract tests are offline")

    connect = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


def _open(subject: Subject) -> list[Images]:
    """Give the two parts, where they are at hand."""
    dataset: Dataset = subject.make()
    try:
        with _offline():
            return [dataset.split(part) for part in PARTS]
    except RobustkitError as error:
        raise NotApplicableError(str(error)) from error


def opens_or_refuses(subject: Subject) -> None:
    """Both parts open, or a line says what is missing, also without a network."""
    dataset: Dataset = subject.make()
    with _offline():
        for part in PARTS:
            attempt(f"opening the part '{part}'", dataset.split, part)


def images_in_bytes(subject: Subject) -> None:
    """`take` gives uint8 (n, C, H, W) of the declared shape."""
    for part, images in zip(PARTS, _open(subject), strict=True):
        require(len(images) > 0, f"{part}: it holds no images")
        x = images.take(torch.tensor([0, len(images) - 1]))
        require(x.dtype == torch.uint8, f"{part}: images are {x.dtype}, not uint8")
        shape = (2, *images.shape)
        require(tuple(x.shape) == shape, f"{part}: two images are {tuple(x.shape)}, not {shape}")


def labels_in_range(subject: Subject) -> None:
    """`labels` is (len,) of int64, each a class's place or -1."""
    for part, images in zip(PARTS, _open(subject), strict=True):
        labels = images.labels
        require(labels.dtype == torch.int64, f"{part}: labels are {labels.dtype}, not int64")
        shape = tuple(labels.shape)
        require(shape == (len(images),), f"{part}: labels {shape} for {len(images)} images")
        inside = (labels >= -1) & (labels < len(images.classes))
        require(inside.all(), f"{part}: a label lies outside the {len(images.classes)} classes")


def taken_in_any_order(subject: Subject) -> None:
    """`take` gives the images of the ids asked for, in their order, with repeats, or none."""
    for part, images in zip(PARTS, _open(subject), strict=True):
        last = len(images) - 1
        ids = torch.tensor([last, 0, last // 2, 0, last])
        single = torch.cat([images.take(one) for one in ids.split(1)])
        require(torch.equal(images.take(ids), single), f"{part}: images come in another order")
        none = images.take(ids[:0])
        right = tuple(none.shape) == (0, *images.shape)
        require(right, f"{part}: no ids give shape {tuple(none.shape)}")


def parts_alike(subject: Subject) -> None:
    """Training and test part have the same shape and the same classes, named once each."""
    train, test = _open(subject)
    require(tuple(train.shape) == tuple(test.shape), f"shapes {train.shape} and {test.shape}")
    require(tuple(train.classes) == tuple(test.classes), "the parts have different classes")
    require(len(set(train.classes)) == len(train.classes), "two classes have one name")
    require(all(isinstance(name, str) for name in train.classes), "a class's name is no text")


CHECKS = Check.all(
    opens_or_refuses,
    images_in_bytes,
    labels_in_range,
    taken_in_any_order,
    parts_alike,
)
