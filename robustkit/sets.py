"""A fixed adversarial set: images made on one model, to be shown to others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from robustkit.errors import BadValueError, nearest
from robustkit.files import read_arrays, write_whole
from robustkit.records import PartRecord, Provenance, Rate, Record, Threat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SetRecord(Record):
    """What an adversarial set was made from: model, attack, threat and points."""

    hash: str
    """Of attack, threat, seed, points and model (8 hexadecimal digits)."""
    model: str
    model_hash: str
    attack: dict[str, Any]
    threat: Threat
    seed: int
    data: dict[str, Any]
    part: str = "test"
    limit: int | None = None
    classes: tuple[str, ...]
    clean: Rate
    """Of the model that the set was made on; so is robust: clean-correct and not fooled."""
    robust: Rate
    parts: tuple[PartRecord, ...]
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Why the set may be weak: what made it was misled by its own model."""
    provenance: Provenance


@dataclass(frozen=True)
class AdversarialSet:
    """Images of points of a data set, and what they were made from where that is known.

    As a file it is one .npz of these arrays, the record as JSON. A file of another tool may hold
    `x_adv` alone: without `ids` its images are of the first points of the part, in its order.
    """

    ids: NDArray[np.int64]
    """Of the points in their part of the data set (N,), no two alike."""
    labels: NDArray[np.int64] | None
    """True classes (N,); None where a foreign file does not say them."""
    x_adv: NDArray[np.float32]
    """Images (N, C, H, W), where the data's lie in [0, 1]."""
    record: SetRecord | None = None

    def __len__(self) -> int:
        return len(self.x_adv)

    @property
    def digest(self) -> str:
        """8 hexadecimal digits of ids and images: equal ones, equal digits."""
        seen = hashlib.sha256(str(self.x_adv.shape).encode())
        seen.update(self.ids.astype("<i8").tobytes())
        seen.update(self.x_adv.astype("<f4").tobytes())
        return seen.hexdigest()[:8]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        import numpy as np

        arrays: dict[str, Any] = {"ids": self.ids, "x_adv": self.x_adv}
        if self.labels is not None:
            arrays["labels"] = self.labels
        if self.record is not None:
            arrays["record"] = np.asarray(self.record.model_dump_json(by_alias=True))
        write_whole(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a set; uint8 images are divided by 255. Raises BadValueError for any other file."""
        import numpy as np

        arrays = read_arrays(path)
        if "x_adv" not in arrays:
            raise BadValueError(f"'{path}' holds no array 'x_adv'{nearest('x_adv', arrays)}")
        x_adv = _images(arrays["x_adv"], path)
        n, record, labels = len(x_adv), None, None
        ids = _integers("ids", arrays.get("ids", np.arange(n)), n, path)
        if len(np.unique(ids)) < n or ids.min() < 0:
            raise BadValueError(f"'{path}': its ids are not numbers from 0 on, each once")
        if "labels" in arrays:
            labels = _integers("labels", arrays["labels"], n, path)
        if "record" in arrays:
            record = SetRecord.parse(str(arrays["record"]), path)
        return cls(ids, labels, x_adv, record)


def _images(x_adv: NDArray[Any], path: Path) -> NDArray[np.float32]:
    import numpy as np

    if x_adv.ndim != 4 or 0 in x_adv.shape or not (x_adv.dtype.kind == "f" or x_adv.dtype == "u1"):
        raise BadValueError(
            f"'{path}': x_adv is {x_adv.dtype} {x_adv.shape}, not images (N, C, H, W) of floats in"
            " [0, 1] or of uint8"
        )
    with np.errstate(over="ignore"):  # what is too large is refused by whoever judges it
        images = x_adv.astype(np.float32)
    return images / np.float32(255) if x_adv.dtype == "u1" else images


def _integers(name: str, values: NDArray[Any], n: int, path: Path) -> NDArray[np.int64]:
    import numpy as np

    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise BadValueError(
            f"'{path}': {name} are {values.dtype} {values.shape}, not an integer for each of its"
            f" {n} images"
        )
    return values.astype(np.int64)
