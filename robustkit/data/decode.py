"""Image files to one array, decoded once and mapped from then on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from robustkit.data.images import Pixels
from robustkit.data.places import home
from robustkit.errors import BadValueError
from robustkit.files import write_whole

Mode = Literal["L", "RGB"]
GREY = {"1", "L"}
COLOUR = {"LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}
CACHE_VERSION = 1
CHUNK = 256
T = TypeVar("T")


class Encoded(NamedTuple):
    """An image file: its name for messages, and what gives its path or opens its bytes."""

    name: str
    open: Callable[[], Path | BinaryIO]


def decoded(root: Path, files: list[Path], size: int | None, mode: Mode | None = None) -> Pixels:
    """Give the images of files below root as a mapped array: see `write_images`."""
    images = [Encoded(str(file), partial(Path, file)) for file in files]
    key = f"folder-{_fingerprint(root, files, size, mode)}"
    return kept(key, lambda out: write_images(out, images, size, mode))


def kept(key: str, write: Callable[[BinaryIO], object]) -> NDArray[Any]:
    """Give a mapped array that `write` writes as .npy where it is not kept under `key` yet."""
    path = home("ROBUSTKIT_CACHE") / f"{key}.npy"
    if not path.exists():
        write_whole(path, write)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise BadValueError(f"'{path}' is damaged; delete it, and it is made anew") from None
    return array


def stamp(file: Path) -> tuple[int, int]:
    """Give a file's size and time, which tell whether it is still the same."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def fingerprint(*parts: object) -> str:
    """Give 20 hexadecimal digits of plain values and of how images are decoded."""
    digest = hashlib.sha256(repr(CACHE_VERSION).encode())
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:20]


def _fingerprint(root: Path, files: list[Path], size: int | None, mode: Mode | None) -> str:
    named = ((str(file.relative_to(root)), *stamp(file)) for file in files)
    return fingerprint(str(root.resolve()), size, mode, *named)


def write_images(
    out: BinaryIO, images: Sequence[Encoded], size: int | None, mode: Mode | None = None
) -> None:
    """Write decoded images as an .npy file (N, C, H, W) of uint8, a chunk at a time.

    They are brought to `mode`, by default grey where all are, and to `size` where given. Raises
    BadValueError, naming the image, where one is damaged or has another size than the first.
    """
    (height, width), common = _common_shape(images, size)
    chosen = mode or common
    shape = (len(images), len(chosen), height, width)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)

    def pixels(image: Encoded) -> bytes:
        from PIL import Image

        with Image.open(image.open()) as opened:
            resized = opened.convert(chosen)
            if resized.size != (width, height):
                resized = resized.resize((width, height), Image.Resampling.BILINEAR)
            array = np.asarray(resized).reshape(height, width, len(chosen))
        return array.transpose(2, 0, 1).tobytes()

    for image in _mapped(pixels, images, "decoding"):
        out.write(image)


def _common_shape(images: Sequence[Encoded], size: int | None) -> tuple[tuple[int, int], Mode]:
    """Find the height and width, and PIL's mode, that all images can be brought to."""
    first: tuple[Encoded, tuple[int, int]] | None = None
    mode: Mode = "L"
    for image, (found, dims) in zip(images, _mapped(_header, images, "looking at"), strict=True):
        if found not in GREY | COLOUR:
            raise BadValueError(
                f"image '{image.name}' has pixels of mode '{found}', not 8 bits a channel"
            )
        first = first or (image, dims)
        if size is None and dims != first[1]:
            raise BadValueError(
                f"image '{image.name}' has {dims[0]}x{dims[1]} pixels but"
                f" '{Path(first[0].name).name}' has {first[1][0]}x{first[1][1]};"
                " give 'size' to resize all"
            )
        mode = mode if found in GREY else "RGB"
    width, height = (size, size) if size else first[1] if first else (0, 0)
    return (height, width), mode


def _header(image: Encoded) -> tuple[str, tuple[int, int]]:
    from PIL import Image

    with Image.open(image.open()) as opened:
        return opened.mode, opened.size


def _mapped(read: Callable[[Encoded], T], images: Sequence[Encoded], doing: str) -> Iterator[T]:
    """Read each image in threads, in order, with progress on stderr; errors name the image."""
    from rich.console import Console
    from rich.progress import track

    def named(image: Encoded) -> T:
        try:
            return read(image)
        # PIL raises many kinds for a damaged image, SyntaxError and struct.error among them.
        except Exception as error:
            raise BadValueError(f"image '{image.name}' cannot be read: {_reason(error)}") from None

    def in_order() -> Iterable[T]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(images), CHUNK):
                yield from pool.map(named, images[start : start + CHUNK])

    console = Console(stderr=True)
    return iter(
        track(
            in_order(),
            f"{doing} {len(images)} images",
            total=len(images),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    )


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return "it is not an image" if type(error).__name__ == "UnidentifiedImageError" else text
