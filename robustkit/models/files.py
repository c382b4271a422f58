"""A model as a file: plain data and tensors, from which it is built again."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from robustkit.component import BUILDER, load_object
from robustkit.errors import BadValueError, RobustkitError, UnsafeFileError, nearest
from robustkit.files import write_whole
from robustkit.interfaces import Architecture
from robustkit.models.unsafe import would_run

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


@dataclass(frozen=True)
class LoadedModel:
    """A model and what its file says of it."""

    module: nn.Module
    """In eval mode: images (N, C, H, W) in [0, 1] to logits."""
    architecture: dict[str, Any]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    record: dict[str, Any]


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


def load_model(path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Build a model from its file, in eval mode; nothing in the file is run.

    Raises UnsafeFileError, naming what a pickle would have run, and BadValueError for a file that
    is missing, damaged, foreign, of a newer schema, or whose weights do not fit.
    """
    content = _parse(path, _read(path))
    try:
        architecture = load_object(BUILDER)("model", content.architecture)
        # Fresh weights are about to be replaced: the caller's random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            module: nn.Module = architecture.build(
                content.shape, len(content.classes), content.mean, content.std
            )
    except RobustkitError as error:
        raise BadValueError(f"model file '{path}': {error}") from None
    except Exception as error:
        raise BadValueError(
            f"model file '{path}': its architecture does not build: {_line(error)}"
        ) from None
    _check_fit(path, content.weights, module.state_dict())
    module.load_state_dict(content.weights)
    return LoadedModel(
        module.to(device).eval(),
        content.architecture,
        content.shape,
        content.classes,
        content.record,
    )


def _read(path: Path) -> object:
    """Load the plain data of a file, after looking for anything that is not plain."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        raise BadValueError(f"model file '{path}' does not exist{near}") from None
    except OSError as error:
        raise BadValueError(f"model file '{path}' cannot be read: {error.strerror}") from None
    pickles = data
    if data[:2] == b"PK":
        data, pickles = _repacked(path, data)
    if names := would_run(pickles):
        raise UnsafeFileError(
            f"model file '{path}' is refused: loading it would run {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}; models are saved as plain data and weights"
        )
    if text := _text(data):
        raise BadValueError(f"model file '{path}' is {text}, not a model; download it again")
    try:
        with warnings.catch_warnings(action="ignore"):  # a foreign file gets one line, not two
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Damage shows as anything: unpickling, runtime, key, type, memory and overflow errors; and
    # torch's text advises to load it all the same.
    except Exception:
        raise BadValueError(
            f"model file '{path}' is damaged: torch finds no plain data and weights in it"
        ) from None


def _repacked(path: Path, data: bytes) -> tuple[bytes, bytes]:
    """Check torch's zip format, and give it written anew, with the pickle that it holds.

    torch's reader skips checksums and sees directory flags that Python's does not: written anew,
    what was checked is what is loaded. Raises BadValueError for damaged and foreign zips.
    """
    clean, parts = io.BytesIO(), dict[str, bytes]()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.compress_type == zipfile.ZIP_STORED:  # as torch does; the rest may be vast
                    parts[info.filename] = archive.read(info)
            names = archive.namelist()
        with zipfile.ZipFile(clean, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
    # zipfile, too, raises many kinds: zip, struct, value, runtime and decoding errors.
    except Exception as error:
        raise BadValueError(
            f"model file '{path}' is truncated or damaged: {_line(error)}"
        ) from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise BadValueError(f"model file '{path}' is a TorchScript program, not a robustkit model")
    pickles = [content for name, content in parts.items() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        inside = ", ".join(names[:3]) or "nothing"
        raise BadValueError(f"model file '{path}' is a zip of something else: it holds {inside}")
    return clean.getvalue(), pickles[0]


def _text(data: bytes) -> str:
    """Say what kind of text a file is; empty where it is none."""
    start = data[:512].lstrip()
    if start[:1] == b"<":
        return "an HTML or XML page"
    try:
        line = (start.decode("ascii").splitlines() or [""])[0]
    except UnicodeDecodeError:
        return ""
    return f"text that begins '{line[:40]}'" if line.isprintable() and line else ""


def _parse(path: Path, loaded: object) -> ModelFile:
    """Check that a file's content is a robustkit model of a known schema."""
    if not isinstance(loaded, dict):
        raise BadValueError(
            f"model file '{path}' holds a {type(loaded).__name__}, not a robustkit model"
        )
    if "schema" not in loaded or "architecture" not in loaded:
        inner = next((v for k, v in loaded.items() if "state_dict" in str(k)), loaded)
        if inner and isinstance(inner, dict) and all(torch.is_tensor(w) for w in inner.values()):
            raise BadValueError(
                f"model file '{path}' holds weights only ('{next(iter(inner))}', ...), not what"
                " rebuilds the model; save it with robustkit.models.save_model"
            )
        raise BadValueError(f"model file '{path}' is not a robustkit model: it has no 'schema'")
    schema = loaded["schema"]
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadValueError(
            f"model file '{path}' has schema {schema}, written by a newer robustkit; this one reads"
            f" up to {SCHEMA}"
        )
    try:
        return ModelFile.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadValueError(f"model file '{path}' is damaged: {place}: {first['msg']}") from None


def _check_fit(path: Path, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not the architecture's, or not numbers, naming the first key."""
    for key in [*wanted, *weights]:
        if key not in weights:
            problem = "are missing"
        elif key not in wanted:
            problem = "belong to no part of its architecture"
        elif weights[key].shape != wanted[key].shape:
            found, right = tuple(weights[key].shape), tuple(wanted[key].shape)
            problem = f"have shape {found}, but the architecture needs {right}"
        elif not weights[key].isfinite().all():
            problem = "are NaN or infinite; the training that made it diverged"
        else:
            continue
        raise BadValueError(f"model file '{path}': weights '{key}' {problem}")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
