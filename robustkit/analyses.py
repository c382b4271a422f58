"""What analyses leave behind: typed records of numbers that are made of evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from robustkit.metric import LabelMetric
from robustkit.records import Rate, Record, RunFolder, digest

Cells = tuple[tuple[float, ...], ...]


class Part(BaseModel):
    """A part of a record; NaN is written as a string."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class Estimate(Part):
    """A quantity measured on n points, with its 95 % interval."""

    value: float
    n: int
    low: float
    high: float


class Metric(Part):
    """Which label metric a number was made with; its largest cost is 1."""

    name: str
    """Of a metric that comes with robustkit, or the path of a file."""
    source: str
    digest: str
    """Of its costs, in the order of the evaluation's classes (8 hexadecimal digits)."""

    @classmethod
    def of(cls, metric: LabelMetric, name: str) -> Self:
        """Describe a metric in the order of an evaluation's classes."""
        hashed = digest([metric.classes, metric.costs.tolist()])
        return cls(name=name, source=metric.source, digest=hashed)


class Evaluated(Part):
    """Which evaluation a number was made of."""

    run: str
    evaluation: str
    """The stem of its files."""
    points: str
    """Digest of its points and their verdicts (8 hexadecimal digits)."""


class PairCost(Part):
    """What the errors between two classes add to the expected cost."""

    label: str
    predicted: str
    count: int
    cost: float
    """Of one such error, in [0, 1]."""
    share: float
    """Of the expected cost, in [0, 1]."""


class Direction(Part):
    """How often an attack turned a class into another, of the points that were right when clean."""

    label: str
    predicted: str
    turned: Rate


class Correlation(Part):
    """Pearson's correlation of two matrices over their cells; None where one is constant."""

    with_diagonal: float | None
    without_diagonal: float | None


class CostRecord(Record):
    """What the errors of one evaluation cost: costs/<stem>-<digest of the metric>.json."""

    evaluated: Evaluated
    metric: Metric
    clean: Estimate
    """Expected cost of the predictions on clean points, in [0, 1]; so is adversarial, attacked."""
    adversarial: Estimate
    score: Estimate
    """The weighted robustness score S: a sum over classes."""
    pairs: tuple[PairCost, ...]
    """Those that add most to the adversarial cost, the dearest first."""

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return f"{self.evaluated.evaluation}-{self.metric.digest}"

    def file(self, folder: RunFolder) -> Path:
        """Give its place in a run. Evaluations lie in a folder of their own, with nothing else."""
        return folder.path / "costs" / f"{self.stem}.json"

    @classmethod
    def all_of(cls, folder: RunFolder) -> Iterator[Self]:
        """Read those of a run, in order of name. Raises BadValueError for a damaged file."""
        for path in sorted((folder.path / "costs").glob("*.json")):
            yield cls.read(path)


class GapRecord(Record):
    """Accuracy gap of a robust and a standard model."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")
    robust: Evaluated
    standard: Evaluated
    n: int
    classes: tuple[str, ...]
    gap: Cells
    """Rows are labels, columns predictions; in [0, 1], NaN in the row of a class without points."""
    metric: Metric | None = None
    correlation: Correlation | None = None

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        asked = (self.robust, self.standard, self.metric)
        return f"gap-{digest([part and part.model_dump() for part in asked])}"


class ScoreRecord(Record):
    """The weighted robustness score S, and that of another model."""

    evaluated: Evaluated
    metric: Metric
    score: Estimate
    against: Evaluated | None = None
    other: Estimate | None = None
    difference: Estimate | None = None
    """Ours less the other's."""

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        other = f"-{digest(self.against.model_dump())}" if self.against else ""
        return f"score-{self.evaluated.evaluation}-{self.metric.digest}{other}"


class DirectionsRecord(Record):
    """Directional robustness: which classes an attack turned into which."""

    evaluated: Evaluated
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """Points that were right when clean, by label (rows) and by what the attack made of them; on
    the diagonal those that held."""
    least: tuple[Direction, ...]
    """Least held first."""
    most: tuple[Direction, ...]
    """Best held first."""

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return f"directions-{self.evaluated.evaluation}"
