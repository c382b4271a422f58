"""Bare weights: they belong to an architecture only if every key and shape does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.errors import BadValueError, RobustkitError
from robustkit.interfaces import Architecture
from robustkit.models.common import Normalise, Normalised
from robustkit.models.loaded import Given, LoadedModel, Shape, first_line

Weights = Mapping[str, Tensor]
WRAPPED = "module."
"""What DataParallel puts before every name."""


def load(path: Path, content: Mapping[Any, Any], given: Given) -> LoadedModel:
    """Put weights into the architecture that the user names.

    They fit with their own normalisation inside, or without any, and then its numbers are the
    user's to give: nothing is assumed. Raises BadValueError, naming the first key that does not
    fit.
    """
    weights = find(path, content)
    if given.architecture is None:
        raise BadValueError(
            f"model file '{path}' holds weights only ('{next(iter(weights))}', ...), not what"
            " rebuilds the model: evaluate it with --arch NAME and --dataset NAME"
        )
    name = given.architecture.name
    shape, classes = given.images(path, "bare weights")
    mean, std = (
        _of_channels(path, flag, values, shape)
        for flag, values in (("--mean", given.mean), ("--std", given.std))
    )
    module = build(
        path, given.architecture, shape, len(classes), mean or [0.0] * shape[0],
        std or [1.0] * shape[0],
    )  # fmt: skip
    if weights.keys() == module.state_dict().keys():
        if mean or std:
            raise BadValueError(
                f"model file '{path}' holds its own normalisation; --mean and --std are for weights"
                " without it"
            )
        check_fit(path, weights, module.state_dict(), name)
        module.load_state_dict(weights)
    else:
        inner = module.net if isinstance(module, Normalised) else module
        inside = tuple(n for n, part in inner.named_modules() if isinstance(part, Normalise))
        wanted = {k: w for k, w in inner.state_dict().items() if k.rpartition(".")[0] not in inside}
        check_fit(path, weights, wanted, name)
        if not (mean and std):
            raise BadValueError(
                f"model file '{path}' holds no normalisation: give --mean and --std as they were in"
                " its training, of pixels in [0, 1] (--mean 0 --std 1 where there was none)"
            )
        inner.load_state_dict(weights, strict=False)
    return LoadedModel(module.eval(), given.architecture.dump(), shape, classes)


def find(path: Path, content: Mapping[Any, Any]) -> Weights:
    """Find the one set of weights in plain data, without what DataParallel puts before names."""
    named = {"": content, **content}
    sets = {name: value for name, value in named.items() if _is_weights(value)}
    if not sets:
        raise BadValueError(
            f"model file '{path}' is neither a robustkit model (it has no 'schema') nor weights"
        )
    if len(sets) > 1:
        names = ", ".join(f"'{name}'" for name in sets)
        raise BadValueError(
            f"model file '{path}' holds several sets of weights ({names}): save the one that is"
            " meant"
        )
    weights: Weights = next(iter(sets.values()))
    if all(key.startswith(WRAPPED) for key in weights):
        return {key.removeprefix(WRAPPED): weight for key, weight in weights.items()}
    return weights


def build(
    path: Path,
    architecture: Architecture,
    shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    """Build a module whose weights are about to be replaced; random numbers stay as they are."""
    try:
        with torch.random.fork_rng(devices=[]):
            return architecture.build(shape, classes, mean, std)
    except RobustkitError as error:
        raise BadValueError(f"model file '{path}': {error}") from None
    except Exception as error:
        raise BadValueError(
            f"model file '{path}': its architecture does not build: {first_line(error)}"
        ) from None


def check_fit(path: Path, weights: Weights, wanted: Weights, architecture: str) -> None:
    """Refuse weights that are not the architecture's, or not numbers, naming the first key."""
    for key in [*wanted, *weights]:
        if key not in weights:
            surplus = next((f", and '{k}' is there" for k in weights if k not in wanted), "")
            problem = f"are missing{surplus}"
        elif key not in wanted:
            problem = "belong to no part of its architecture"
        elif weights[key].shape != wanted[key].shape:
            found, right = tuple(weights[key].shape), tuple(wanted[key].shape)
            problem = f"have shape {found}, but the architecture needs {right}"
        elif weights[key].is_floating_point() != wanted[key].is_floating_point():
            problem = f"are {weights[key].dtype}, but the architecture needs {wanted[key].dtype}"
        elif not weights[key].isfinite().all():
            raise BadValueError(
                f"model file '{path}': weights '{key}' are NaN or infinite; the training that made"
                " it diverged"
            )
        else:
            continue
        raise BadValueError(
            f"model file '{path}' does not fit architecture '{architecture}': weights '{key}'"
            f" {problem}"
        )


def _is_weights(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(w, Tensor) for k, w in value.items())
    )


def _of_channels(
    path: Path, flag: str, values: tuple[float, ...] | None, shape: Shape
) -> tuple[float, ...] | None:
    """Give a number for each channel. Raises BadValueError for another count of them."""
    if values is None or len(values) == shape[0]:
        return values
    if len(values) > 1:
        raise BadValueError(
            f"model file '{path}' has {len(values)} numbers for {flag}, and {shape[0]} channels"
        )
    return values * shape[0]
