"""The forms that CIFAR's images come in: as published, in two formats, and as image files."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustkit.data.archive import contents
from robustkit.data.decode import Encoded, decoded, fingerprint, kept, stamp, write_images
from robustkit.data.folder import class_names, image_files
from robustkit.data.images import Pixels
from robustkit.data.plain_pickle import read_pickle
from robustkit.errors import BadValueError, UnknownNameError

SHAPE = (3, 32, 32)
BYTES = 3 * 32 * 32
ARCHIVES = ("", ".tar.xz", ".tar.gz", ".tgz", ".tar")
SUFFIXES = {"jpg": (".jpg", ".jpeg"), "png": (".png",)}
Read = tuple[Pixels, NDArray[Any]]


def read_binary(place: Path, batches: tuple[str, ...], header: int) -> Read:
    """Read records of `header` labels, of which the last counts, and 3,072 bytes of pixels."""
    files = _batches(place, tuple(f"{batch}.bin" for batch in batches))
    for name, data in files.items():
        if not data or len(data) % (header + BYTES):
            raise BadValueError(
                f"'{name}' of '{place}' is damaged: {len(data)} bytes are no whole number of"
                f" records of {header + BYTES}"
            )
    raw = np.frombuffer(b"".join(files.values()), np.uint8).reshape(-1, header + BYTES)
    return np.ascontiguousarray(raw[:, header:]).reshape(-1, *SHAPE), raw[:, header - 1]


def read_python(place: Path, batches: tuple[str, ...], key: str) -> Read:
    """Read pickles, running none, whose tables hold `data` (N, 3072) and labels under `key`."""
    pixels, labels = [], []
    for name, data in _batches(place, batches).items():
        origin = f"'{name}' of '{place}'"
        table = read_pickle(data, origin)
        x, y = table.get("data"), table.get(key)
        if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != BYTES:
            raise BadValueError(f"{origin} holds no array 'data' of (N, {BYTES}) bytes")
        if (
            not isinstance(y, list)
            or len(y) != len(x)
            or not all(type(v) is int and v >= 0 for v in y)
        ):
            raise BadValueError(f"{origin} holds no list '{key}' of {len(x)} labels")
        pixels.append(x.reshape(-1, *SHAPE))
        labels.append(np.array(y, dtype=np.int64))
    return np.concatenate(pixels), np.concatenate(labels)


def _batches(place: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    files = contents(place, 1, lambda name: name in names)
    for name in names:
        if name not in files:
            raise BadValueError(f"'{place}' holds no file '{name}'")
    return files


def read_copy(place: Path, part: str, classes: tuple[str, ...], kind: str) -> Read:
    """Read part/<class>/<image> of a folder or an archive; `kind` is jpg or png.

    Images are decoded once and mapped; labels are the classes' places.
    """
    if place.is_dir():
        _check_classes(place, class_names(place / part), classes)
        listed = [image_files(place / part / name, SUFFIXES[kind]) for name in classes]
        labels = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
        files = [file for of_class in listed for file in of_class]
        return _checked(place, decoded(place, files, None, "RGB")), labels

    @cache
    def files_inside() -> dict[str, bytes]:
        return _inside(place, part, classes, kind)

    key = f"archive-{fingerprint(str(place.resolve()), *stamp(place), part, kind)}"
    labels = kept(f"{key}-labels", lambda out: np.save(out, _labels(files_inside(), classes)))
    pixels = kept(key, lambda out: write_images(out, _encoded(place, files_inside()), None, "RGB"))
    return _checked(place, pixels), labels


def _inside(place: Path, part: str, classes: tuple[str, ...], kind: str) -> dict[str, bytes]:
    """Read the images of a part of an archive, by "part/class/image"."""
    files = contents(
        place, 3, lambda name: name.startswith(f"{part}/") and name.endswith(SUFFIXES[kind])
    )
    _check_classes(place, {_class(name) for name in files}, classes)
    return files


def _class(name: str) -> str:
    return name.split("/")[1]


def _labels(files: dict[str, bytes], classes: tuple[str, ...]) -> NDArray[np.int64]:
    return np.array([classes.index(_class(name)) for name in files], dtype=np.int64)


def _encoded(place: Path, files: dict[str, bytes]) -> list[Encoded]:
    return [Encoded(f"{place}/{name}", partial(BytesIO, data)) for name, data in files.items()]


def _check_classes(place: Path, found: Collection[str], classes: tuple[str, ...]) -> None:
    for name in sorted(found):
        if name not in classes:
            raise UnknownNameError("class", name, classes, f"a folder of '{place}'")
    if lacking := [name for name in classes if name not in found]:
        raise BadValueError(f"'{place}' holds no images of class '{lacking[0]}'")


def _checked(place: Path, pixels: Pixels) -> Pixels:
    if pixels.shape[1:] != SHAPE:
        size = "x".join(map(str, pixels.shape[2:]))
        raise BadValueError(f"images of '{place}' have {size} pixels, not 32x32")
    return pixels
