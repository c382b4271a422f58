"""Reads pickles of plain values and arrays of bytes, and runs nothing that they ask for."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from robustkit.data.images import Pixels
from robustkit.errors import BadValueError, UnsafeFileError


class _Dtype:
    """Stands in for numpy.dtype: it keeps the code, as "u1"."""

    def __init__(self, code: str | bytes = "", *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray: it keeps the shape and the bytes of what is uint8."""

    pixels: Pixels

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.code not in ("u1", "uint8") or fortran:
            raise ValueError(f"an array is '{dtype.code}', not uint8 in C order")
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        self.pixels = np.frombuffer(raw, np.uint8).reshape(shape)


def _bytes(text: str, encoding: str) -> bytes:
    """Stand in for codecs.encode, by which Python 3 writes bytes for Python 2."""
    return text.encode("latin1")


STAND_INS = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "_codecs.encode": _bytes,
}


class _Reader(pickle.Unpickler):
    """Gives stand-ins for what arrays are pickled with, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in STAND_INS:
            raise UnsafeFileError(asked)
        return STAND_INS[asked]


def read_pickle(data: bytes, origin: str) -> dict[str, Any]:
    """Read a pickled dict of plain values and uint8 arrays, by Python 2 or 3.

    Raises UnsafeFileError, naming what it would run, for a pickle that wants anything else, and
    BadValueError for one that is damaged.
    """
    try:
        _check_sizes(data)
        value = _Reader(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): _array(entry) for key, entry in value.items()}
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{origin} would run '{error}' when loaded, which no data need; it was not run"
        ) from None
    # A damaged pickle raises almost anything.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadValueError(f"{origin} is not a readable pickle: {reason}") from None


def _check_sizes(data: bytes) -> None:
    """Refuse a pickle that claims to hold more than it does: a loader would make room for it."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
            raise ValueError(f"it remembers value {argument} of {len(data)} bytes")


def _array(value: object) -> object:
    return value.pixels if isinstance(value, _Array) else value


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
