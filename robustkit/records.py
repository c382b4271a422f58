"""What a run leaves behind: typed, versioned, and all that a report reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustkit.arrays import EvalPoints
from robustkit.errors import BadValueError
from robustkit.files import write_text
from robustkit.threat import ThreatModel, format_eps

SCHEMA = 1
FIXED = "fixed"
"""The name of the attack that shows images made beforehand; no attack is found under it."""


class Record(BaseModel):
    """A file of a run. Unknown keys of a newer minor version are kept out, older files are read."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    schema_version: int = Field(default=SCHEMA, alias="schema")

    def write(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(by_alias=True, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record. Raises BadValueError, naming the file and what is wrong with it."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise BadValueError(f"'{path}' cannot be read: {error.strerror}") from None

    @classmethod
    def parse(cls, text: str | bytes, path: Path) -> Self:
        """Read a record that a file at `path` holds. Raises BadValueError, naming that file."""
        try:
            record = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "file"
            raise BadValueError(f"'{path}' is damaged: {place}: {first['msg']}") from None
        if record.schema_version > SCHEMA:
            raise BadValueError(
                f"'{path}' has schema {record.schema_version}, written by a newer robustkit;"
                f" this one reads up to {SCHEMA}"
            )
        return record


class Provenance(BaseModel):
    """Where a number comes from."""

    model_config = ConfigDict(frozen=True)
    versions: dict[str, str]
    """Of robustkit, python, torch, ..."""
    device: str
    commit: str = ""
    command: str = ""
    started: str
    """ISO 8601, UTC."""
    seconds: float
    threads: int = 1
    processes: int = 1


class Threat(BaseModel):
    """A threat model as a record keeps it; eps "inf" and an open box are written as strings."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
    norm: str
    eps: float
    low: float = 0.0
    high: float = 1.0
    bits: int | None = None
    """Bits a channel of the images that count; None for any pixels."""
    target: str | None = None
    """What the model must say for an image to count; None for anything wrong."""

    @classmethod
    def of(cls, threat: ThreatModel) -> Self:
        return cls(**vars(threat))

    def model(self) -> ThreatModel:
        return ThreatModel(**vars(self))


class Rate(BaseModel):
    """A share of n points, with its 95 % interval; all three in [0, 1]."""

    model_config = ConfigDict(frozen=True)
    count: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.n if self.n else 0.0


class EpochLine(BaseModel):
    """A line of metrics.jsonl. Accuracies are in [0, 1]; those of unmeasured epochs are absent."""

    model_config = ConfigDict(frozen=True)
    epoch: int
    step: int
    lr: float
    loss: float
    """Mean training loss."""
    train_accuracy: float | None = None
    """On the points as trained on, adversarial where training is, while the weights move."""
    heldout_accuracy: float | None = None
    heldout_adversarial: float | None = None
    heldout_loss: float | None = None
    heldout_balanced: float | None = None
    """The mean over the classes of their accuracies: where one is rare, what it is taken for
    counts as much as another. So is `heldout_adversarial_balanced`, under the attack."""
    heldout_adversarial_balanced: float | None = None
    seconds: float = 0.0
    more: dict[str, float] = Field(default_factory=dict)
    warning: str | None = None


class GeneratedRecord(BaseModel):
    """Generated points that a training showed beside the real ones."""

    model_config = ConfigDict(frozen=True)
    path: str
    digest: str
    """Of images and labels (8 hexadecimal digits)."""
    n: int
    share: float
    """Of each batch, in (0, 1)."""
    made: dict[str, Any] = Field(default_factory=dict)
    """What the file says of its making (see SampleRecord); empty where it says nothing."""


class RunRecord(Record):
    """run.json: a training and its results."""

    name: str
    title: str = ""
    trainer: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    threat: Threat
    seed: int
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    parameters: int
    data_remark: str = ""
    """In what the images differ from those that their data set's name promises, if they do."""
    n_train: int
    """Real points; so is n_heldout."""
    n_heldout: int
    generated: GeneratedRecord | None = None
    epochs: int
    epochs_done: int
    best_epoch: int | None = None
    selected_by: str = ""
    heldout_clean: Rate | None = None
    heldout_adversarial: Rate | None = None
    finished: bool = False
    stopped: str = ""
    """Why training stopped early, where it did."""
    provenance: Provenance


class PartRecord(BaseModel):
    """What one attack of an ensemble did to the points that the earlier ones left."""

    model_config = ConfigDict(frozen=True)
    name: str
    options: dict[str, Any]
    attacked: int
    broken: int
    seconds: float
    forwards: float
    """Forward passes, summed over points."""
    backwards: float
    spread: bool = False
    """Whether passes were spread evenly because the attack did not name its rows."""
    rejected: int = 0
    """Proposals outside the threat by more than rounding: the attack is broken if there are any."""
    stopped: int = 0
    """Points whose search ran out of time."""


class Stopped(BaseModel):
    """What ended an evaluation before its last point; those attacked are the first in order."""

    model_config = ConfigDict(frozen=True)
    of: int
    """How many points were asked for."""
    limit: float
    unit: str
    """Of the limit: seconds or passes of a budget, or points, which is the width of robust
    accuracy's interval in percentage points."""


class EvalRecord(Record):
    """One attack at one threat on one model: eval/<stem>.json, with the points in <stem>.npz."""

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
    """How many points these are; None for all."""
    named: bool = False
    """Whether the points were named by their ids, rather than the first in seeded order."""
    classes: tuple[str, ...]
    stopped: Stopped | None = None
    """What ended it before all of these were attacked, if anything did."""
    clean: Rate
    robust: Rate
    """Right when clean, and unbroken; where the threat has a target, not made into it."""
    reached: Rate | None = None
    """Of the points that are right when clean, those made into the target, where there is one."""
    parts: tuple[PartRecord, ...]
    separate: bool = False
    """Whether each part attacked every point that is right when clean, and counted what it broke;
    `robust` is then of the points that none of them broke."""
    confusion_clean: tuple[tuple[int, ...], ...]
    """Rows are labels, columns predictions."""
    confusion_adversarial: tuple[tuple[int, ...], ...]
    eot: int = 1
    """Passes whose mean logits the attack saw as one."""
    judged_by: int = 1
    """Clean passes a verdict was judged over: more than 1 for a randomised model."""
    remarks: tuple[str, ...] = ()
    """In what the run differs from what the names of its attack and its data promise."""
    warnings: tuple[str, ...] = ()
    """Why the number may be wrong: gradient masking, softmax outputs, ..."""
    provenance: Provenance

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return stem(self.attack["name"], self.threat.norm, self.threat.eps, self.hash)

    @property
    def transferred(self) -> bool:
        """Whether images were shown that were made on another model, or nobody knows on which."""
        fixed = self.attack.get("name") == FIXED
        return fixed and self.attack.get("model_hash") != self.model_hash

    @property
    def valid(self) -> bool:
        """Whether every proposal kept to the threat, so that the number means something."""
        return not any(part.rejected for part in self.parts)


def stem(attack: str, norm: str, eps: float, hashed: str) -> str:
    """Name an evaluation's files."""
    return f"{attack.replace(':', '-')}-{norm}-{format_eps(eps).replace('/', '_')}-{hashed}"


@dataclass(frozen=True)
class RunFolder:
    """runs/<name>/: where each file of a run is."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def generator(self) -> Path:
        return self.path / "generator.pt"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def evaluations(self) -> Path:
        return self.path / "eval"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def gallery(self, stem: str) -> Path:
        """Give the file of the images that an evaluation shows."""
        return self.evaluations / f"{stem}.gallery.npz"

    def epochs(self) -> list[EpochLine]:
        """Read metrics.jsonl; empty where there is none. Raises BadValueError where damaged."""
        if not self.metrics.exists():
            return []
        try:
            lines = self.metrics.read_text("utf-8").splitlines()
            return [EpochLine.model_validate_json(line) for line in lines if line.strip()]
        except (ValidationError, UnicodeDecodeError):
            reason = "a line is not that of an epoch"
            raise BadValueError(f"'{self.metrics}' is damaged: {reason}") from None

    def results(self) -> Iterator[tuple[EvalRecord, EvalPoints]]:
        """Give every finished evaluation of this run, in order of name."""
        for path in sorted(self.evaluations.glob("*.json")):
            yield EvalRecord.read(path), EvalPoints.read(path.with_suffix(".npz"))


def digest(value: Any) -> str:
    """Give 8 hexadecimal digits of plain data: equal data, equal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
