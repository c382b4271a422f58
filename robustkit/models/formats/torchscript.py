"""TorchScript: a program in a language of its own, of which some words reach beyond tensors."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from robustkit.errors import BadValueError, UnsafeFileError
from robustkit.models.formats import program
from robustkit.models.formats.raw import pack
from robustkit.models.loaded import Given, LoadedModel, first_line

REACHES = {"save", "from_file"}
"""The operators of torch that read or write files (of all that are registered in torch 2.15)."""
AT_LOADING = {"__setstate__"}
NAMESPACES = {"prim", "aten"}


class Script(nn.Module):
    """A script that always computes as written: the optimiser would change bits between calls."""

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script

    def forward(self, x: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            logits: Tensor = self.script(x)
        return logits


def load(path: Path, data: bytes, parts: dict[str, bytes], given: Given) -> LoadedModel:
    """Load a script that does nothing but compute.

    Raises UnsafeFileError for one that would read or write files, call operators other than
    torch's own, or run anything at loading.
    """
    form = "TorchScript"
    given.none_of_weights(path, form)
    given.images(path, f"a program of {form}")
    if not given.unsafe and (names := reaching(parts)):
        raise UnsafeFileError(
            f"model file '{path}' is refused: its program uses {', '.join(names[:3])}, which may do"
            " more than compute; give --unsafe if you trust whoever made it"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            script = torch.jit.load(pack(parts), map_location="cpu")
        script.eval()
    except Exception as error:
        raise BadValueError(f"model file '{path}' is damaged: {first_line(error)}") from None
    return program.loaded(path, Script(script), form, data, given)


def reaching(parts: dict[str, bytes]) -> list[str]:
    """Name what a script's code uses that may reach beyond tensors, read as loosely as can be.

    A word counts wherever it stands, also in strings, with which attributes can be got.
    """
    found: dict[str, None] = {}
    for name, content in parts.items():
        if "/code/" not in name or name.endswith(".debug_pkl"):
            continue
        text = content.decode("latin-1")
        text += text.encode("latin-1").decode("unicode_escape", "replace")
        words = set(re.findall(r"\w+", text))
        found |= dict.fromkeys(sorted(words & (REACHES | AT_LOADING)))
        for after in re.findall(r"(?<!\.)\bops\b\s*\.?\s*(\w*)", text):
            if after not in NAMESPACES:
                found[f"ops.{after}"] = None
    return list(found)
