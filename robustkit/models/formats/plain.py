"""What torch.save writes: plain data and tensors, or a pickle that would run something."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from robustkit.errors import BadValueError, UnsafeFileError
from robustkit.models.formats.raw import pack, refuse_text
from robustkit.models.loaded import first_line
from robustkit.models.unsafe import would_run


def read(path: Path, data: bytes, parts: dict[str, bytes] | None, *, unsafe: bool) -> object:
    """Load the content of a file with torch; `parts` are those of its zip, where it is one.

    Raises UnsafeFileError, naming what a pickle would run, unless `unsafe` lets it, and
    BadValueError for damage.
    """
    pickles, file = data, io.BytesIO(data)
    if parts is not None:
        found = [content for name, content in parts.items() if name.endswith("/data.pkl")]
        if len(found) != 1:
            inside = ", ".join(list(parts)[:3]) or "nothing"
            raise BadValueError(
                f"model file '{path}' is a zip of something else: it holds {inside}"
            )
        pickles, file = found[0], pack(parts)
    if not unsafe and (names := would_run(pickles)):
        raise UnsafeFileError(
            f"model file '{path}' is refused: loading it would run {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}; save weights alone, or give --unsafe if you"
            " trust whoever made it"
        )
    if parts is None:
        refuse_text(path, data)
    try:
        with warnings.catch_warnings(action="ignore"):  # a foreign file gets one line, not two
            return torch.load(file, map_location="cpu", weights_only=not unsafe)
    # Damage shows as anything: unpickling, runtime, key, type, memory and overflow errors; and
    # torch's text advises to load it all the same.
    except Exception as error:
        why = first_line(error) if unsafe else "torch finds no plain data and weights in it"
        raise BadValueError(f"model file '{path}' is damaged: {why}") from None
