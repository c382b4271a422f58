"""What an evaluation leaves behind as arrays: its points, and the images that a report shows."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from robustkit.errors import BadValueError
from robustkit.files import read_arrays, write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNKNOWN: Any = None
"""Stands for a column that older files lack."""


@dataclass(frozen=True)
class Table:
    """An .npz file of columns, each (N, ...), a row a point."""

    ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Put NaN in the place of each column that is not known."""
        import numpy as np

        for field in fields(self):
            if getattr(self, field.name) is UNKNOWN:
                object.__setattr__(self, field.name, np.full(len(self.ids), np.nan))

    def write(self, path: Path) -> None:
        """Write the arrays, whole or not at all."""
        import numpy as np

        write_whole(path, lambda file: np.savez_compressed(file, **vars(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the arrays. Raises BadValueError where the file is damaged."""
        arrays, names = read_arrays(path), [field.name for field in fields(cls)]
        later = {field.name for field in fields(cls) if field.default is not MISSING}
        if not set(names) - later <= set(arrays) <= set(names):
            raise BadValueError(f"'{path}' is damaged: its arrays are not {', '.join(names)}")
        return cls(**arrays)


@dataclass(frozen=True)
class EvalPoints(Table):
    """A row a point, in the order of evaluation: the arrays of eval/<stem>.npz, all (N,)."""

    labels: NDArray[np.int64]
    clean_predictions: NDArray[np.int64]
    adversarial_predictions: NDArray[np.int64]
    robust: NDArray[np.bool_]
    """Clean-correct and unbroken by every part."""
    broken_by: NDArray[np.int64]
    """Index into the record's parts; -1 where none broke it, -2 where it was wrong when clean, -3
    where a broken attack's proposal was rejected, so that there is no verdict."""
    sizes: NDArray[np.float64]
    """Size of the perturbation that broke it, in the threat's norm; NaN where none did."""
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]
    margins: NDArray[np.float64] = UNKNOWN
    """What was left of the logit margin of a robust point at the proposal that came closest; NaN
    for others, and where an older file does not say it."""


@dataclass(frozen=True)
class Gallery(Table):
    """Images that a report shows, of one evaluation: gallery-<stem>.npz, all (N, ...)."""

    x: NDArray[np.float32]
    """Originals (N, C, H, W) in [0, 1]."""
    x_adv: NDArray[np.float32]
    labels: NDArray[np.int64]
    clean_predictions: NDArray[np.int64]
    adversarial_predictions: NDArray[np.int64]
    margins: NDArray[np.float64] = UNKNOWN
    """What was left of the logit margin, for points that were not broken; NaN for others."""
