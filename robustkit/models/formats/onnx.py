"""ONNX: a graph of operators, made into torch's by onnx2torch so that gradients reach the image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from robustkit.errors import BadValueError
from robustkit.models.formats import program
from robustkit.models.loaded import Given, LoadedModel, first_line

if TYPE_CHECKING:
    from onnx import ModelProto

FORM = "ONNX"
OPSET = 17
"""The newest set of operators that onnx2torch knows."""


def load(path: Path, data: bytes, given: Given) -> LoadedModel:
    """Load a graph from images to logits.

    Raises BadValueError where it is damaged, not in one file, for one number of images only, or has
    operators that onnx2torch does not know, and where the extra is not installed.
    """
    given.none_of_weights(path, f"a program of {FORM}")
    given.images(path, f"a program of {FORM}")
    try:
        import onnx
        from onnx2torch import convert
    except ImportError:
        raise BadValueError(
            f"model file '{path}' needs an extra: pip install 'robustkit[onnx]'"
        ) from None
    try:
        model = onnx.load_model_from_string(data)
        _require_whole(path, model)
        with warnings.catch_warnings(action="ignore"):
            module = convert(_understood(model))
    except BadValueError:
        raise
    # protobuf, onnx and onnx2torch raise kinds of their own.
    except Exception as error:
        raise BadValueError(
            f"model file '{path}' is damaged, or not what onnx2torch knows: {first_line(error)}"
        ) from None
    return program.loaded(path, module.eval(), FORM, data, given)


def _require_whole(path: Path, model: ModelProto) -> None:
    graph = model.graph
    if outside := [tensor.name for tensor in graph.initializer if tensor.external_data]:
        raise BadValueError(
            f"model file '{path}' keeps '{outside[0]}' in another file: export it with"
            " external_data=False"
        )
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise BadValueError(
            f"model file '{path}' has {len(graph.input)} inputs and {len(graph.output)} outputs,"
            " not images and logits"
        )
    if number := graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        raise BadValueError(
            f"model file '{path}' takes {number} images at a time only: export it with"
            " dynamic_shapes=({0: torch.export.Dim('n', min=1)},)"
        )


def _understood(model: ModelProto) -> ModelProto:
    """Give the graph in operators that onnx2torch knows; what it computes stays the same.

    A reshape's `allowzero` means nothing where its shape has no zero.
    """
    from onnx import numpy_helper, version_converter

    shapes = {t.name for t in model.graph.initializer if numpy_helper.to_array(t).all()}
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in shapes:
            del node.attribute[:]
    newest = max(opset.version for opset in model.opset_import if opset.domain == "")
    return version_converter.convert_version(model, OPSET) if newest > OPSET else model
