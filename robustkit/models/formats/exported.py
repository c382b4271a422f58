"""Programs of torch.export, whose own loader trusts whoever wrote them.

It unpickles what a flag in the file says is a pickle, evaluates sizes as Python, looks functions up
by name anywhere in torch, and imports what a tree of outputs names. So only what is known to be
harmless is handed to it, written anew.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from robustkit.errors import BadValueError, UnsafeFileError
from robustkit.models.formats import program
from robustkit.models.formats.raw import pack
from robustkit.models.loaded import Given, LoadedModel, first_line

FORM = "torch.export"
GRAPH = "models/model.json"
TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
FORMAT = ("archive_format", "archive_version", "byteorder", ".data/version")
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
IMAGES = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF]}
OPTIONS = {"type": "builtins.dict", "context": "[]", "children_spec": []}
ARGUMENTS = {"type": "builtins.tuple", "context": "null", "children_spec": [IMAGES, OPTIONS]}
ANYTHING = re.compile(r".*", re.DOTALL)
HARMLESS = {
    "target": re.compile(
        r"torch\.ops\.aten\.(?!from_file\b)[a-z0-9_]+\.[A-Za-z0-9_]+|torch\.sym_[a-z]+"
        r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
        r"|math\.(ceil|floor|trunc|sqrt)"
    ),
    "expr_str": re.compile(
        r"(Symbol\('[su]\d+'(, (positive|nonnegative|integer)=True)*\)|Integer\(-?\d{1,18}\)"
        r"|(Add|Mul|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv)\(|\)|, )+"
    ),
    # Compared with what they have to be, quoted, or only shown.
    **dict.fromkeys(("in_spec", "out_spec", "as_string", "torch_version"), ANYTHING),
    # An operator as an argument: of no use to a classifier.
    "as_operator": re.compile(r"(?!)"),
}
"""What a string in a graph may be by its key; all others are plain names, and so are keys."""
NAME = re.compile(r"[\w.]*")


def load(path: Path, data: bytes, parts: dict[str, bytes], given: Given) -> LoadedModel:
    """Load an exported program of torch's own operators, from images to logits.

    Raises UnsafeFileError for one that holds or asks for more, and BadValueError where it is
    damaged, or for one number of images only.
    """
    given.none_of_weights(path, f"a program of {FORM}")
    given.images(path, f"a program of {FORM}")
    parts = {name.partition("/")[2]: content for name, content in parts.items()}
    try:
        clean = parts if given.unsafe else _harmless(path, parts)
        with warnings.catch_warnings(action="ignore"):
            exported = torch.export.load(pack({f"model/{n}": c for n, c in clean.items()}))
    except (BadValueError, UnsafeFileError):
        raise
    # A graph that is wrong somewhere fails anywhere in torch.
    except Exception as error:
        raise BadValueError(f"model file '{path}' is damaged: {first_line(error)}") from None
    _require_any_batch(path, exported)
    return program.loaded(path, exported.module(), FORM, data, given)


def _harmless(path: Path, parts: dict[str, bytes]) -> dict[str, bytes]:
    """Give the parts that a program is made of, its graph without all that is only said of it."""
    others = [n for n in parts if n.startswith(("data/aotinductor", "data/custom", "data/extra"))]
    if others:
        raise _unsafe(path, f"'{others[0]}'")
    clean = {n: c for n, c in parts.items() if n in FORMAT or TENSORS.fullmatch(n)}
    for name in CONFIGS:
        config = json.loads(parts[name])
        for payload in config["config"].values():
            place = f"{name.rpartition('/')[0]}/{payload['path_name']}"
            if payload["use_pickle"] or not TENSORS.fullmatch(place):
                raise _unsafe(path, f"the pickle '{payload['path_name']}'")
        clean[name] = json.dumps(config).encode()
    clean[GRAPH] = json.dumps(_graph(path, json.loads(parts[GRAPH]))).encode()
    clean["data/sample_inputs/model.pt"] = b""
    return clean


def _graph(path: Path, graph: dict[str, Any]) -> dict[str, Any]:
    """Give a graph without all that is only said of it, checked."""
    graph["guards_code"] = []
    module = graph["graph_module"]
    module["metadata"] = {}
    module["module_call_graph"] = [m for m in module["module_call_graph"] if m["fqn"] == ""]
    for node in module["graph"]["nodes"]:
        node["metadata"] = {}
    for key, text in _strings(graph):
        if not HARMLESS.get(key, NAME).fullmatch(text):
            raise _unsafe(path, f"'{text:.60}'")
    (call,) = module["module_call_graph"]
    trees = [json.loads(call["signature"][spec]) for spec in ("in_spec", "out_spec")]
    if trees != [[1, ARGUMENTS], [1, LEAF]]:
        raise BadValueError(
            f"model file '{path}' is not a program of images alone, as one tensor, to logits"
        )
    return graph


def _strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Give all strings in plain data, each with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "", name
            yield from _strings(item, name)


def _unsafe(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"model file '{path}' is refused: its program holds {what}, which may do more than compute;"
        " give --unsafe if you trust whoever made it"
    )


def _require_any_batch(path: Path, exported: torch.export.ExportedProgram) -> None:
    (images,) = exported.graph_signature.user_inputs
    (node,) = (node for node in exported.graph.nodes if node.name == images)
    size = node.meta["val"].shape[0]
    if isinstance(size, int):
        raise BadValueError(
            f"model file '{path}' takes {size} images at a time only: export it with"
            " dynamic_shapes=({0: torch.export.Dim('n', min=1)},)"
        )
