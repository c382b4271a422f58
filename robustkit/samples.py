"""A file of generated images: what a generator made, or another tool."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pydantic import BaseModel, ConfigDict

from robustkit.errors import BadValueError
from robustkit.files import map_arrays, write_whole
from robustkit.records import Provenance, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustkit.data.images import ArrayImages, Pixels

CHUNK = 4096


class Labelled(BaseModel):
    """Which classifier said of what class the images are."""

    model_config = ConfigDict(frozen=True)
    model: str
    """As it was named: a run folder, a file, or zoo:NAME."""
    model_hash: str


class Sieve(BaseModel):
    """A filter that the images went through."""

    model_config = ConfigDict(frozen=True)
    name: str
    options: dict[str, Any]
    before: int
    after: int


class SampleRecord(Record):
    """Where generated images come from."""

    generator: dict[str, Any]
    """The generator and its options; empty where another tool made the images."""
    run: str = ""
    """The folder that the generator was trained in."""
    parts_hash: str = ""
    """Of the generator's weights (8 hexadecimal digits)."""
    data: dict[str, Any]
    """What it was trained on; so is n_train, and the other numbers of the run are in `run`."""
    n_train: int = 0
    seed: int
    labelled: Labelled | None = None
    """None where the generator was asked for the classes, or does not know any."""
    sieves: tuple[Sieve, ...] = ()
    provenance: Provenance


@dataclass(frozen=True)
class Samples:
    """Generated images, mapped from the file where it is not compressed, and what is known of them.

    As a file it is one uncompressed .npz: `x` (N, C, H, W) uint8, `y` (N,) with -1 where the class
    is unknown, `classes`, and where known `confidence` and `record` (JSON). The npz files of other
    tools are read as the data set `npz` reads them.
    """

    images: ArrayImages
    confidence: NDArray[np.float32] | None = None
    """Of whoever said the labels (N,), in [0, 1]."""
    record: SampleRecord | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """8 hexadecimal digits of images and labels: equal ones, equal digits."""
        import torch

        seen = hashlib.sha256(str((len(self), *self.images.shape)).encode())
        for ids in torch.arange(len(self)).split(CHUNK):
            seen.update(self.images.take(ids).contiguous().numpy().tobytes())
        seen.update(self.images.labels.numpy().astype("<i8").tobytes())
        return seen.hexdigest()[:8]

    @classmethod
    def read(cls, path: Path, classes: Sequence[str] = ()) -> Self:
        """Open a file; `classes` name the labels of one that does not.

        A folder of class folders of images, or of images alone, is read, too. Raises BadValueError
        for anything else, naming what is wrong with it.
        """
        from robustkit.data.folder import class_folders, known_classes
        from robustkit.data.npz import labelled_images

        if path.is_dir():
            return cls(class_folders(path, known_classes(path)))
        arrays = map_arrays(path)
        images = labelled_images(arrays, f"'{path}'", classes=classes)
        record = None
        if "record" in arrays:
            record = SampleRecord.parse(str(arrays["record"]), path)
        return cls(images, _confidence(arrays, len(images), path), record)


def write(
    path: Path,
    blocks: Iterable[Pixels],
    labels: NDArray[Any],
    classes: Sequence[str],
    record: SampleRecord | Callable[[], SampleRecord],
    confidence: NDArray[Any] | None = None,
) -> None:
    """Write a file whole, block (n, C, H, W) by block, so that any number fits into memory.

    The blocks hold as many images as there are labels; `record` may be what gives it once they are
    written. Raises BadValueError where the place cannot be written.
    """
    import numpy as np

    arrays: dict[str, Any] = {"y": labels.astype(np.int64), "classes": np.asarray(classes, str)}
    if confidence is not None:
        arrays["confidence"] = confidence.astype(np.float32)

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("x.npy", "w", force_zip64=True) as member:
                _stream(member, blocks, len(labels))
            made = record() if callable(record) else record
            arrays["record"] = np.asarray(made.model_dump_json(by_alias=True))
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_whole(path, fill)


def _stream(member: Any, blocks: Iterable[Pixels], n: int) -> None:
    """Write what np.save would write of all blocks joined."""
    import numpy as np

    for i, block in enumerate(blocks):
        if i == 0:
            head = io.BytesIO()
            shape = (n, *block.shape[1:])
            np.lib.format.write_array_header_1_0(
                head, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            member.write(head.getvalue())
        member.write(np.ascontiguousarray(block).tobytes())


def _confidence(arrays: dict[str, Any], n: int, path: Path) -> NDArray[np.float32] | None:
    import numpy as np

    if "confidence" not in arrays:
        return None
    values = np.asarray(arrays["confidence"])
    inside = values.shape == (n,) and values.dtype.kind == "f" and (values >= 0).all()
    if not (inside and (values <= 1).all()):
        raise BadValueError(
            f"'{path}': confidence is not a number in [0, 1] for each of {n} images"
        )
    return values.astype(np.float32)
