"""A run as a TOML file: parse, override, complete, write back.

Components stay plain tables `{name, ...options}` here; the catalogue builds them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from robustkit.errors import BadValueError, UnknownNameError
from robustkit.threat import ThreatModel, parse_eps, parse_norm

SCHEMA = 1
Table = dict[str, Any]


class Section(BaseModel):
    """A part of a recipe: typed keys, unknown ones refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Threat(Section):
    """What the adversary may do in training and selection; the model remembers it."""

    norm: str = Field(default="linf", description="linf, l2, l1 or none")
    eps: float | str = Field(default="8/255", description="size of a perturbation, as 8/255 or 0.3")
    low: float = Field(default=0.0, description="smallest pixel; -inf turns the box off")
    high: float = Field(default=1.0, description="largest pixel; inf turns the box off")

    @field_validator("norm")
    @classmethod
    def _known_norm(cls, value: str) -> str:
        return parse_norm(value)

    @field_validator("eps")
    @classmethod
    def _valid_eps(cls, value: float | str) -> float | str:
        parse_eps(value)
        return value

    def model(self) -> ThreatModel:
        """Give the threat model of these keys."""
        return ThreatModel(parse_norm(self.norm), parse_eps(self.eps), self.low, self.high)


class Optimizer(Section):
    """How weights follow their gradient."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = Field(default="sgd", description="the rule")
    lr: float = Field(default=0.1, gt=0, description="learning rate that the schedule scales")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd and rmsprop")
    nesterov: bool = Field(default=False, description="Nesterov's momentum, of sgd")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="first moment's decay, of adam")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="second moment's decay, of adam")
    rho: float = Field(default=0.99, ge=0, lt=1, description="squared gradient's decay, of rmsprop")
    eps: float = Field(default=1e-8, gt=0, description="in the denominator of adam and rmsprop")
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty (adamw: decoupled)")
    decay: Literal["all", "weights"] = Field(
        default="all", description="what decays: all, or no biases and norms (parameters of 1 axis)"
    )
    clip: float | None = Field(default=None, gt=0, description="largest norm of a gradient")


class Schedule(Section):
    """The learning rate over training, as a factor of the optimiser's `lr`."""

    name: Literal["constant", "piecewise", "cosine", "linear", "one-cycle", "cyclic", "inverse"] = (
        Field(
            default="constant",
            description="constant; piecewise: times `factor` at each milestone; cosine and linear:"
            " down to 0; one-cycle: up over `warmup`, then down to 0; cyclic: `cycles` triangles"
            " from 0 up and down to 0; inverse: 1 / (1 + decay * step)",
        )
    )
    milestones: tuple[float, ...] = Field(
        default=(), description="epochs of piecewise; below 1, shares of all epochs"
    )
    factor: float = Field(default=0.1, gt=0, description="of piecewise, at each milestone")
    warmup: float = Field(
        default=0.4, ge=0, lt=1, description="share of one-cycle, or of each cycle, that rises"
    )
    cycles: int = Field(default=1, ge=1, description="triangles of cyclic")
    decay: float = Field(default=1e-6, ge=0, description="of inverse, a step (Keras)")


class Fit(Section):
    """How long, on what, and in which arithmetic."""

    epochs: int = Field(default=10, ge=1, description="passes over the training data")
    batch_size: int = Field(default=128, ge=1, description="points a step, of all processes")
    heldout: float = Field(
        default=0.1, gt=0, description="training data kept for selection: a share, or a count"
    )
    limit: int | None = Field(default=None, ge=1, description="train on this many points only")
    labels: int | None = Field(
        default=None,
        ge=1,
        description="keep the labels of only so many of them, as many of each class: a trainer"
        " trains on these alone, a generator on all",
    )
    labelled_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="of each batch of a generator, where some points have no label: those that have"
        " one come again and again, and an epoch is one of the others",
    )
    augment: tuple[Literal["crop", "flip", "cutout"], ...] = Field(
        default=(),
        description="crop (after padding by 4), flip (left to right), cutout (the data's mean over"
        " a square of half the side)",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of each label that is spread over all classes"
    )
    mixup: float = Field(
        default=0.0, ge=0, description="alpha of mixup's shares, of Beta(alpha, alpha); 0: none"
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of an exponential average of the weights, which then is what is selected"
        " and kept; 0: none",
    )
    precision: Literal["32", "bf16", "16"] = Field(
        default="32", description="arithmetic of training; verdicts are always float32"
    )
    channels_last: bool = Field(
        default=False, description="hold images channel by channel last in memory"
    )
    compile: bool = Field(default=False, description="compile the model, for training only")
    deterministic: bool = Field(
        default=True, description="the same bits again on a GPU; false: its fastest kernels, TF32"
    )
    adversary_mode: Literal["eval", "train"] = Field(
        default="eval", description="mode of the model inside the inner attack"
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _number_is_a_name(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value


class Generated(Section):
    """Generated points that are trained on beside the real ones; validation never sees them."""

    path: str = Field(
        description="a file of samples (robustkit's own, or `image` and `label` as published sets"
        " have them), or a folder of class folders of images"
    )
    share: float = Field(default=0.5, gt=0, lt=1, description="of each batch")

    @field_validator("path")
    @classmethod
    def _from_anywhere(cls, value: str) -> str:
        return str(Path(value).expanduser().absolute())


class Select(Section):
    """Which epoch's weights are kept: the best on the held-out part of the training data."""

    metric: Literal["adversarial", "clean", "last"] = Field(
        default="adversarial", description="accuracy that counts; ties go to the other one"
    )
    attack: Table = Field(
        default_factory=lambda: {"name": "pgd", "steps": 10}, description="attack it is under"
    )
    limit: int = Field(default=1024, ge=1, description="held-out points that are attacked")
    every: int = Field(default=1, ge=1, description="epochs between two measurements")


class Recipe(Section):
    """Everything that makes a run: `train --recipe FILE` makes the same one again."""

    schema_version: int = Field(default=SCHEMA, alias="schema", description="of this file")
    title: str = Field(default="", description="what this is, in a line")
    source: str = Field(default="", description="paper, table and number that it stands for")
    seed: int = Field(default=0, ge=0, description="of everything random")
    data: Table = Field(default_factory=lambda: {"name": "digits"}, description="a data set")
    model: Table = Field(default_factory=lambda: {"name": "cnn"}, description="an architecture")
    trainer: Table | None = Field(default=None, description="a trainer, with its loss and attack")
    generator: Table | None = Field(default=None, description="a generator, instead of a trainer")
    threat: Threat = Field(default_factory=Threat)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Field(default_factory=Schedule)
    fit: Fit = Field(default_factory=Fit)
    generated: Generated | None = Field(default=None, description="points beside the real ones")
    select: Select = Field(default_factory=Select)

    @field_validator("data", "model", "trainer", "generator", mode="before")
    @classmethod
    def _name_is_a_table(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("schema_version")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if value > SCHEMA:
            raise ValueError(f"this robustkit reads schemas up to {SCHEMA}; install a newer one")
        return value

    def dump(self) -> Table:
        """Give the plain tables of this recipe, every key written out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


SECTIONS = {f.alias or name: f for name, f in Recipe.model_fields.items()}


def section(name: str) -> type[Section] | None:
    """Give the part of a recipe of this name, where it is one of typed keys."""
    annotation = SECTIONS[name].annotation if name in SECTIONS else None
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def parse(text: str, origin: str) -> Table:
    """Read TOML into tables. Raises BadValueError with the line that is wrong."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadValueError(f"recipe '{origin}' is not TOML: {error}") from None


def read(path: Path) -> Table:
    """Read a recipe file. Raises BadValueError where there is none."""
    try:
        return parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadValueError(f"recipe '{path}' cannot be read: {reason}") from None


def write(recipe: Recipe) -> str:
    """Write a recipe as TOML that reads back to an equal one."""
    import tomli_w

    return tomli_w.dumps(recipe.dump())


def validate(table: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check tables against the recipe's keys. Raises UnknownNameError or BadValueError."""
    try:
        recipe = Recipe.model_validate(dict(table))
    except ValidationError as error:
        raise _explain(error, origin) from None
    if (recipe.trainer is None) == (recipe.generator is None):
        raise BadValueError(f"{origin} needs either a [trainer] or a [generator] table")
    return recipe


def _explain(error: ValidationError, origin: str) -> Exception:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        part = section(path[0])
        inner = part.model_fields if part else {}
        return UnknownNameError("key", key, [f"{path[0]}.{k}" for k in inner] or SECTIONS, origin)
    if first["type"] == "missing":
        return BadValueError(f"{origin} needs the key '{key}'")
    message = first["msg"].removeprefix("Value error, ")
    return BadValueError(f"key '{key}' of {origin} is {first['input']!r}: {message}")


def parse_override(text: str) -> tuple[str, Any]:
    """Split "a.b=c" into its path and its value, read as TOML where it is TOML, else as text."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not all(path.split(".")):
        raise BadValueError(f"--set '{text}' is not of the form a.b=value")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value.strip()


def full_path(path: str) -> list[str]:
    """Give the place that a path means: `attack.steps` stands for `trainer.attack.steps`."""
    keys = path.split(".")
    return keys if keys[0] in SECTIONS else ["trainer", *keys]


def override(table: Mapping[str, Any], settings: Iterable[tuple[str, Any]]) -> Table:
    """Set paths to values in a copy of the tables.

    Names come first: another name for a component drops the options of the one it replaces.
    """
    result = deepcopy(dict(table))
    for path, value in sorted(settings, key=lambda s: not s[0].endswith("name")):
        *parents, last = full_path(path)
        node = result
        for key in parents:
            inner = node.get(key, {})
            node[key] = {"name": inner} if isinstance(inner, str) else inner
            if not isinstance(node[key], dict):
                raise BadValueError(f"'{path}' does not lead anywhere: '{key}' is {inner!r}")
            node = node[key]
        if last == "name" and node.get("name") != value:
            node.clear()
        node[last] = deepcopy(value)
    return result
