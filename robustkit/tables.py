"""A published table: as a TOML file that says what makes its rows and columns, and made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from robustkit import recipe as recipes
from robustkit import records
from robustkit.errors import BadValueError, UnknownNameError, nearest
from robustkit.recipe import Section, Threat
from robustkit.records import Provenance, Rate, Record

CLEAN = "clean"
"""The column of accuracy on the points as they are; every table has it."""


class MadeOn(Section):
    """The run whose model a column's points are made on."""

    row: str = Field(description="the row that it is a run of")
    seed: int = Field(ge=0, description="its seed; the table's own are other networks")

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}"


class Column(Section):
    """A robust accuracy of every row's model."""

    name: str = Field(description="as the table heads it")
    attack: dict[str, Any] = Field(description="an attack, with its options")
    threat: Threat = Field(default_factory=Threat, description="what the attack may do")
    limit: int | None = Field(default=None, ge=1, description="test points; all where absent")
    made_on: MadeOn | None = Field(
        default=None,
        description="attack this run alone, once, and show its images to every row's model",
    )

    @field_validator("attack", mode="before")
    @classmethod
    def _name_is_a_table(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class Row(Section):
    """A way of training: a registered recipe, and what differs from it."""

    name: str = Field(description="as the table names it")
    recipe: str = Field(description="a registered recipe")
    settings: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="keys of the recipe to set, as with --set"
    )
    paper: dict[str, float] = Field(
        default_factory=dict, description="published accuracies by column, in percent"
    )
    note: str = Field(default="", description="what to know of the published numbers")


class Plan(Section):
    """What a table is made of."""

    title: str = Field(description="what it shows, in a line")
    source: str = Field(default="", description="paper and table")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="one run a row for each")
    columns: tuple[Column, ...] = Field(min_length=1, description="besides clean accuracy")
    settings: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="keys to set in every row that does not"
    )
    rows: tuple[Row, ...] = Field(min_length=1)

    @field_validator("rows")
    @classmethod
    def _rows_are_set_alike(cls, rows: tuple[Row, ...], info: ValidationInfo) -> tuple[Row, ...]:
        shared = info.data.get("settings", {})
        return tuple(r.model_copy(update={"settings": {**shared, **r.settings}}) for r in rows)

    @model_validator(mode="after")
    def _names_are_known_and_unique(self) -> Plan:
        for things in (self.columns, self.rows):
            names = [thing.name for thing in things]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"the name '{min(twice)}' is there twice")
        known = [CLEAN, *(column.name for column in self.columns)]
        for row in self.rows:
            for column in row.paper:
                if column not in known:
                    raise ValueError(f"row '{row.name}' has a number for no column: '{column}'")
        rows = [row.name for row in self.rows]
        for made in self.columns:
            if made.made_on and made.made_on.row not in rows:
                raise ValueError(
                    f"column '{made.name}' is made on no row: '{made.made_on.row}'"
                    f"{nearest(made.made_on.row, rows)}"
                )
        return self


def parse(text: str, origin: str) -> Plan:
    """Read a table's file. Raises BadValueError, naming the key that is wrong."""
    try:
        return Plan.model_validate(recipes.parse(text, origin))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "it"
        message = first["msg"].removeprefix("Value error, ")
        raise BadValueError(f"table '{origin}': {key}: {message}") from None


def pick(plan: Plan, rows: Iterable[str]) -> list[Row]:
    """Give some of the rows by name or number (from 1), in the table's order; all where none named.

    Raises UnknownNameError.
    """
    wanted = list(rows)
    numbered = {str(i): row.name for i, row in enumerate(plan.rows, 1)}
    names = [numbered.get(name, name) for name in wanted]
    known = [row.name for row in plan.rows]
    for name in names:
        if name not in known:
            raise UnknownNameError("row", name, known, f"rows are numbered 1 to {len(known)}, too")
    return [row for row in plan.rows if not names or row.name in names]


def shortened(table: Mapping[str, Any], epochs: int) -> recipes.Table:
    """Give a recipe's tables for fewer epochs: milestones and pauses shrink in proportion."""
    recipe = recipes.validate(table)
    planned, every = recipe.fit.epochs, recipe.select.every
    marks = [m / planned if m >= 1 else m for m in recipe.schedule.milestones if m < planned]
    return recipes.override(
        recipe.dump(),
        [
            ("fit.epochs", epochs),
            ("schedule.milestones", marks),
            ("select.every", max(1, round(every * epochs / planned))),
        ],
    )


class Cell(BaseModel):
    """A number of a table: the published one in [0, 1], and ours by seed."""

    model_config = ConfigDict(frozen=True)
    paper: float | None = None
    ours: Rate | None = None
    """The mean over seeds, with the interval of one seed's points; absent where none was made."""
    seeds: dict[int, Rate] = Field(default_factory=dict)


class TableRow(BaseModel):
    """A way of training in a table."""

    model_config = ConfigDict(frozen=True)
    name: str
    cells: dict[str, Cell]
    runs: tuple[str, ...]
    """The run folders, beside the table's file."""
    notes: tuple[str, ...] = ()


class TableColumn(BaseModel):
    """What a column of a table is, besides clean accuracy."""

    model_config = ConfigDict(frozen=True)
    name: str
    attack: dict[str, Any]
    threat: records.Threat
    limit: int | None = None
    """Test points; all where absent."""
    made_on: str = ""
    """The run that its points were made on, once; each model's own where empty."""


class TableRecord(Record):
    """table.json: a published table, and what came of making it again."""

    name: str
    title: str
    source: str
    columns: tuple[TableColumn, ...] = ()
    rows: tuple[TableRow, ...]
    cuts: tuple[str, ...]
    """In what ours is less than the published one, a line each."""
    provenance: Provenance
