"""robustkit's own model file: plain data and tensors, from which the model is built again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from robustkit.component import BUILDER, load_object
from robustkit.errors import BadValueError, RobustkitError
from robustkit.files import write_whole
from robustkit.interfaces import Architecture
from robustkit.models.formats.weights import build, check_fit
from robustkit.models.loaded import Given, LoadedModel

SCHEMA = 1
Side = Annotated[int, Field(ge=1, le=65536)]


class ModelFile(BaseModel):
    """What model.pt holds."""

    model_config = ConfigDict(frozen=True, strict=True, arbitrary_types_allowed=True)
    schema_version: int = Field(default=SCHEMA, alias="schema")
    architecture: dict[str, Any]
    """The table that the catalogue builds the architecture from."""
    shape: tuple[Side, Side, Side]
    classes: tuple[str, ...] = Field(min_length=1)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    record: dict[str, Any]
    """Whatever else is worth knowing: data set, threat, recipe, versions; plain as JSON."""
    weights: dict[str, Tensor]


def save_model(
    path: Path,
    model: nn.Module,
    architecture: Architecture,
    shape: tuple[int, int, int],
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    record: Mapping[str, Any],
) -> None:
    """Write a model so that `load_model` builds it again; the file appears whole or not at all.

    `record` is kept as JSON keeps it. Raises BadValueError where it cannot be, or the folder
    cannot be written.
    """
    try:
        plain = json.loads(json.dumps(dict(record)))
    except (TypeError, ValueError) as error:
        raise BadValueError(f"the record of model '{path}' is not plain data: {error}") from None
    content = ModelFile(
        architecture=architecture.dump(),
        shape=shape,
        classes=tuple(classes),
        mean=tuple(float(m) for m in mean),
        std=tuple(float(s) for s in std),
        record=plain,
        # A tensor is written with all of its storage, so views are copied out of theirs.
        weights={name: w.detach().cpu().clone() for name, w in model.state_dict().items()},
    )
    fields = {field.alias or name: name for name, field in ModelFile.model_fields.items()}
    table = {key: getattr(content, name) for key, name in fields.items()}
    write_whole(path, lambda file: torch.save(table, file))


def is_ours(content: Mapping[Any, Any]) -> bool:
    """Say whether plain data is, or means to be, a robustkit model."""
    return "schema" in content and "architecture" in content


def load(path: Path, table: Mapping[Any, Any], given: Given) -> LoadedModel:
    """Build a model from what its file holds.

    Raises BadValueError for a file that is damaged, of a newer schema, names code of the user's
    that the user does not name as well, or whose weights do not fit.
    """
    content = _parse(path, table)
    architecture = _architecture(path, content, given)
    classes = len(content.classes)
    module = build(path, architecture, content.shape, classes, content.mean, content.std)
    check_fit(path, content.weights, module.state_dict(), architecture.name)
    module.load_state_dict(content.weights)
    return LoadedModel(
        module.eval(), content.architecture, content.shape, content.classes, content.record
    )


def _architecture(path: Path, content: ModelFile, given: Given) -> Architecture:
    name = str(content.architecture.get("name"))
    if given.architecture is not None and given.architecture.name != name:
        raise BadValueError(
            f"model file '{path}' is of architecture '{name}', not '{given.architecture.name}':"
            " leave --arch out"
        )
    if given.mean or given.std:
        raise BadValueError(
            f"model file '{path}' holds its own normalisation; --mean and --std are for weights"
        )
    if ":" in name:
        if given.architecture is None:
            raise BadValueError(
                f"model file '{path}' is of architecture '{name}', code that no file may have run:"
                f" give --arch {name} if it is yours"
            )
        return given.architecture
    try:
        architecture: Architecture = load_object(BUILDER)("model", content.architecture)
    except RobustkitError as error:
        raise BadValueError(f"model file '{path}': {error}") from None
    return architecture


def _parse(path: Path, table: Mapping[Any, Any]) -> ModelFile:
    """Check that a file's content is a robustkit model of a known schema."""
    schema = table["schema"]
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadValueError(
            f"model file '{path}' has schema {schema}, written by a newer robustkit; this one reads"
            f" up to {SCHEMA}"
        )
    try:
        return ModelFile.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadValueError(f"model file '{path}' is damaged: {place}: {first['msg']}") from None
