"""A model as a file, in whichever format: nothing in it is run unless the user says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from robustkit.errors import BadValueError
from robustkit.models.formats import native, plain, raw, weights
from robustkit.models.formats.native import save_model
from robustkit.models.loaded import Given, LoadedModel

__all__ = ["Given", "LoadedModel", "load_model", "save_model"]


def load_model(
    path: Path, device: torch.device | str = "cpu", given: Given | None = None
) -> LoadedModel:
    """Load a model from its file, in eval mode.

    Takes robustkit's own files, bare weights (.pt, .pth, .safetensors), programs of torch.export
    (.pt2), of TorchScript and of ONNX, and, where `given.unsafe`, pickled modules.

    Raises UnsafeFileError, naming what the file would have run, and BadValueError for one that is
    missing, damaged, foreign, of a newer schema, does not fit, or leaves open what `given` does
    not say.
    """
    given = given or Given()
    loaded = _load(path, given)
    loaded.module.to(device)
    return replace(loaded, again=partial(_module, path.absolute(), given))


def _module(path: Path, given: Given) -> nn.Module:
    return _load(path, given).module


def _load(path: Path, given: Given) -> LoadedModel:
    data = raw.read(path)
    if path.suffix in (".safetensors", ".onnx"):
        raw.refuse_text(path, data)
    if path.suffix == ".safetensors":
        from robustkit.models.formats import safetensors

        return weights.load(path, safetensors.read(path, data), given)
    if path.suffix == ".onnx":
        from robustkit.models.formats import onnx

        return onnx.load(path, data, given)
    parts = raw.unpack(path, data) if data[:2] == b"PK" else None
    names = {name.rpartition("/")[2] for name in parts or ()}
    if parts and "constants.pkl" in names:
        from robustkit.models.formats import torchscript

        return torchscript.load(path, data, parts, given)
    if parts and "archive_format" in names:
        from robustkit.models.formats import exported

        return exported.load(path, data, parts, given)
    content = plain.read(path, data, parts, unsafe=given.unsafe)
    if isinstance(content, nn.Module):
        given.none_of_weights(path, "a pickled module")
        shape, classes = given.images(path, "a pickled module")
        return LoadedModel(content.eval(), {"name": type(content).__qualname__}, shape, classes)
    if not isinstance(content, Mapping):
        raise BadValueError(
            f"model file '{path}' holds a {type(content).__name__}, neither a model nor weights"
        )
    if native.is_ours(content):
        return native.load(path, content, given)
    return weights.load(path, content, given)
