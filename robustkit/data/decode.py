"""Image files to one array, decoded once and mapped from then on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from robustkit.data.images import Pixels
from robustkit.data.places import home
from robustkit.errors import BadValueError
from robustkit.files import write_whole

GREY = {"1", "L"}
COLOUR = {"LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}
CACHE_VERSION = 1
CHUNK = 256
T = TypeVar("T")


def decoded(root: Path, files: list[Path], size: int | None) -> Pixels:
    """Give the images of files below root as a mapped array (N, C, H, W) of uint8.

    Raises BadValueError, naming the file, where one is damaged or has another size.
    """
    kept = home("ROBUSTKIT_CACHE") / f"folder-{_fingerprint(root, files, size)}.npy"
    if not kept.exists():
        shape, mode = _common_shape(files, size)
        write_whole(kept, lambda out: _write(out, files, shape, mode))
    try:
        array: Pixels = np.load(kept, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise BadValueError(f"'{kept}' is damaged; delete it, and it is made anew") from None
    return array


def _fingerprint(root: Path, files: list[Path], size: int | None) -> str:
    digest = hashlib.sha256(repr((CACHE_VERSION, str(root.resolve()), size)).encode())
    for file in files:
        stat = file.stat()
        digest.update(repr((str(file.relative_to(root)), stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()[:20]


def _common_shape(files: list[Path], size: int | None) -> tuple[tuple[int, int, int], str]:
    """Find the shape (C, H, W) and PIL's mode that all images are brought to."""
    first, mode = None, "L"
    for file, (found, dims) in zip(files, _mapped(_header, files, "looking at"), strict=True):
        if found not in GREY | COLOUR:
            raise BadValueError(
                f"image '{file}' has pixels of mode '{found}', not 8 bits a channel"
            )
        first = first or (file, dims)
        if size is None and dims != first[1]:
            raise BadValueError(
                f"image '{file}' has {dims[0]}x{dims[1]} pixels but '{first[0].name}' has"
                f" {first[1][0]}x{first[1][1]}; give 'size' to resize all"
            )
        mode = mode if found in GREY else "RGB"
    width, height = (size, size) if size else first[1] if first else (0, 0)
    return (len(mode), height, width), mode


def _header(file: Path) -> tuple[str, tuple[int, int]]:
    from PIL import Image

    with Image.open(file) as image:
        return image.mode, image.size


def _write(out: BinaryIO, files: list[Path], shape: tuple[int, int, int], mode: str) -> None:
    """Write the decoded images as an .npy file, a chunk at a time."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)}
    np.lib.format.write_array_header_1_0(out, header)

    def pixels(file: Path) -> bytes:
        from PIL import Image

        with Image.open(file) as image:
            resized = image.convert(mode)
            if resized.size != (shape[2], shape[1]):
                resized = resized.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
            array = np.asarray(resized).reshape(shape[1], shape[2], shape[0])
        return array.transpose(2, 0, 1).tobytes()

    for image in _mapped(pixels, files, "decoding"):
        out.write(image)


def _mapped(read: Callable[[Path], T], files: list[Path], doing: str) -> Iterator[T]:
    """Read each file in threads, in order, with progress on stderr; errors name the file."""
    from rich.console import Console
    from rich.progress import track

    def named(file: Path) -> T:
        try:
            return read(file)
        # PIL raises many kinds for a damaged image, SyntaxError and struct.error among them.
        except Exception as error:
            raise BadValueError(f"image '{file}' cannot be read: {_reason(error)}") from None

    def in_order() -> Iterable[T]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(files), CHUNK):
                yield from pool.map(named, files[start : start + CHUNK])

    console = Console(stderr=True)
    return iter(
        track(
            in_order(),
            f"{doing} {len(files)} images",
            total=len(files),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    )


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return "it is not an image" if type(error).__name__ == "UnidentifiedImageError" else text
