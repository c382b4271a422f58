"""Label metrics: what it costs to take one class for another."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from robustkit.errors import BadValueError, UnknownNameError
from robustkit.files import write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDING = 1e-6
"""Of the largest cost: by how much two that should be equal may differ."""
MOST_UNITS = 1000
"""Costs that are whole numbers of a unit up to this one are written as such."""


@dataclass(frozen=True, eq=False)
class LabelMetric:
    """What it costs to take each class for each other one, as shares of the largest cost.

    Costs are checked when it is made: (K, K), finite, not negative, symmetric, 0 on the diagonal.
    They are divided by the largest, which so is 1, and cannot be written to. The triangle
    inequality need not hold. Raises BadValueError, naming the first pair of classes that is wrong.

    Source: Terzi et al., 2020, definition 4 (label metrics), which leaves the scale open.
    """

    classes: tuple[str, ...]
    costs: NDArray[np.float64]
    """(K, K), in [0, 1]; as given, any scale."""
    source: str = ""
    """Where the costs come from, in a line."""

    def __post_init__(self) -> None:
        import numpy as np

        classes, costs = tuple(self.classes), np.array(self.costs, dtype=np.float64)
        _check_names(classes)
        if costs.shape != (len(classes), len(classes)):
            shape = "x".join(map(str, costs.shape))
            raise BadValueError(f"{len(classes)} classes have costs of {shape}")
        _check_costs(classes, costs)
        costs /= costs.max()
        costs = (costs + costs.T) / 2
        np.fill_diagonal(costs, 0.0)
        costs /= costs.max()
        costs.setflags(write=False)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "source", " ".join(self.source.split()))

    def power(self, p: float) -> NDArray[np.float64]:
        """Raise every cost to the power p >= 0: (K, K), in [0, 1].

        What costs nothing stays free also for p = 0, the diagonal first of all; so C^0 is the 0/1
        metric wherever other classes cost anything. Raises BadValueError for another p.
        """
        import numpy as np

        if not 0 <= p < np.inf:
            raise BadValueError(f"power {p} of a label metric is not a finite number >= 0")
        return np.where(self.costs > 0, self.costs**p, 0.0)

    def reordered(self, classes: Sequence[str]) -> LabelMetric:
        """Give the metric of these classes, in this order; fewer than all are scaled anew.

        A metric without names (its classes are "0", "1", ...) is taken to be in the order of the
        labels where as many other names are asked for. Raises UnknownNameError for a class that
        the metric lacks.
        """
        if _unnamed(self.classes, classes):
            return replace(self, classes=tuple(classes))
        places = {name: place for place, name in enumerate(self.classes)}
        for name in classes:
            if name not in places:
                raise UnknownNameError("class of the metric", name, places)
        order = [places[name] for name in classes]
        return LabelMetric(tuple(classes), self.costs[order][:, order], self.source)

    def write(self, path: Path) -> None:
        """Write the costs as a CSV that reads back to equal ones, whole or not at all.

        The first row and column are names of classes, the cell in the corner is the source. Costs
        that are whole numbers of some unit are written in that unit.
        """
        import numpy as np

        units = (n for n in range(2, MOST_UNITS) if np.array_equal(self._in(n) / n, self.costs))
        unit = next(units, 0)
        rows = self._in(unit).astype(int).tolist() if unit else self.costs.tolist()
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([self.source, *self.classes])
        table.writerows([name, *row] for name, row in zip(self.classes, rows, strict=True))
        write_text(path, text.getvalue())

    def _in(self, unit: int) -> NDArray[np.float64]:
        return (self.costs * unit).round()

    @classmethod
    def read(cls, path: Path) -> LabelMetric:
        """Read a CSV: names of classes in the first row and column, then costs on any scale.

        K rows of K numbers without names are read, too; their classes are "0" to "K-1". Raises
        BadValueError, naming the file and what is wrong with it.
        """
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise BadValueError(f"metric '{path}' cannot be read: {reason}") from None
        try:
            return cls.parse(text)
        except BadValueError as error:
            raise BadValueError(f"metric '{path}': {error}") from None

    @classmethod
    def parse(cls, text: str) -> LabelMetric:
        """Read the text of a CSV. Raises BadValueError."""
        try:
            lines = csv.reader(io.StringIO(text, newline=""))
            rows = [[cell.strip() for cell in row] for row in lines if any(map(str.strip, row))]
        except csv.Error as error:
            raise BadValueError(f"it is no CSV: {error}") from None
        if not rows:
            raise BadValueError("it is empty")
        if all(map(_is_number, rows[0])):
            return cls(tuple(map(str, range(len(rows)))), _numbers(rows, len(rows)))
        (source, *names), body = rows[0], rows[1:]
        for number, (name, row) in enumerate(zip(names, body, strict=False), 1):
            if row[0] != name:
                row_of, column_of = _short(row[0]), _short(name)
                raise BadValueError(f"row {number} is of {row_of}, column {number} of {column_of}")
        if len(body) != len(names):
            raise BadValueError(f"it has {len(names)} columns of costs and {len(body)} rows")
        return cls(tuple(names), _numbers([row[1:] for row in body], len(names)), source)


def shipped() -> dict[str, Path]:
    """Give the files of the metrics that come with robustkit, by name."""
    folder = Path(str(files("robustkit"))) / "metrics"
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}


def find_metric(name: str) -> LabelMetric:
    """Find a metric by the name of one that comes with robustkit, or by the path of a CSV.

    Raises UnknownNameError where it is neither, and BadValueError for a bad file.
    """
    known, path = shipped(), Path(name)
    if name in known:
        return LabelMetric.read(known[name])
    if path.suffix.lower() == ".csv" or path.is_file():
        return LabelMetric.read(path)
    raise UnknownNameError("label metric", name, known, "or name a CSV file")


def _unnamed(own: Sequence[str], wanted: Sequence[str]) -> bool:
    numbered = list(map(str, range(len(wanted))))
    return list(own) == numbered and not set(own) & set(wanted)


def _check_names(classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise BadValueError(f"a label metric has two classes or more, not {len(classes)}")
    for name in classes:
        if len(name.strip().splitlines()) != 1:
            raise BadValueError(
                f"class {classes.index(name)} of the metric has no name in one line"
            )
        if classes.count(name) > 1:
            raise BadValueError(f"class '{name}' of the metric is there twice")


def _check_costs(classes: Sequence[str], costs: NDArray[np.float64]) -> None:
    """Raise BadValueError for the first pair, row by row, that no metric has."""
    import numpy as np

    def refuse(wrong: NDArray[np.bool_], reason: str) -> None:
        for i, j in np.argwhere(wrong)[:1]:
            other = "itself" if i == j else f"'{classes[j]}'"
            found, back = f"{costs[i, j]:g}", f"{costs[j, i]:g}"
            reason = reason.format(back=back)
            raise BadValueError(f"the cost of '{classes[i]}' for {other} is {found}, {reason}")

    refuse(~np.isfinite(costs), "not a finite number")
    refuse(costs < 0, "below 0")
    rounding = ROUNDING * costs.max()
    refuse(np.diag(np.diag(costs) > rounding), "not 0")
    refuse(np.abs(costs - costs.T) > rounding, "but {back} the other way round")
    if not (costs - np.diag(np.diag(costs))).any():
        raise BadValueError("every cost of the metric is 0")


def _short(cell: str) -> str:
    return f"'{shorten(cell, 40)}'"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(rows: Sequence[Sequence[str]], width: int) -> NDArray[np.float64]:
    """Read rows of numbers, `width` each. Raises BadValueError, naming the first bad cell."""
    import numpy as np

    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise BadValueError(f"row {number} of {len(rows)} has {len(row)} costs, not {width}")
        for cell in row:
            if not _is_number(cell):
                raise BadValueError(f"row {number} has {_short(cell)}, which is no number")
    return np.array([[float(cell) for cell in row] for row in rows])
