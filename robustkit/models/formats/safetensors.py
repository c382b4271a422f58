"""Bare weights in the format of safetensors."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from robustkit.errors import BadValueError
from robustkit.models.loaded import first_line


def read(path: Path, data: bytes) -> dict[str, Tensor]:
    """Read tensors by name. Raises BadValueError for a damaged file, or one of something else."""
    from safetensors.torch import load

    try:
        return load(data)
    # SafetensorError is no child of ValueError, and names of types come as KeyError.
    except Exception as error:
        raise BadValueError(
            f"model file '{path}' is damaged, or no safetensors: {first_line(error)}"
        ) from None
