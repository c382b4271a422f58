"""Reads what a pickle would run, without running any of it."""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Iterator

HARMLESS = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(tensor(_v2)?|parameter)"
    r"|torch(\.storage)?\.\w+Storage"
    r"|torch\.(Size|device|bfloat16|float(16|32|64)|u?int(8|16|32|64)|bool)"
)
"""What tensors, and dicts of them, are written with; torch's own loader allows no less."""

TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
        "SHORT_BINSTRING"}  # fmt: skip
REMEMBER = {"PUT", "BINPUT", "LONG_BINPUT"}
RECALL = {"GET", "BINGET", "LONG_BINGET"}


def would_run(data: bytes) -> list[str]:
    """Name the functions and classes a file of pickles would import, besides the harmless ones.

    Reads pickle after pickle (torch's legacy format has several in a row), up to where they end or
    break.
    """
    file, found = io.BytesIO(data), list[str]()
    try:
        while file.tell() < len(data):
            for name in _globals(file):
                importable = name.replace(".", "").isidentifier()  # else it is plain text
                if importable and not HARMLESS.fullmatch(name) and name not in found:
                    found.append(name)
    except Exception:
        # What follows is no pickle, or a broken one: a loader would stop here as well.
        return found
    return found


def _globals(file: io.BytesIO) -> Iterator[str]:
    """Give each "module.name" that one pickle asks for."""
    memo: dict[int, str] = {}
    texts: list[str] = []
    last = ""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in TEXT:
            last = str(argument)
            texts.append(last)
        elif opcode.name in REMEMBER:
            memo[int(argument or 0)] = last
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name in RECALL:
            texts.append(memo.get(int(argument or 0), "?"))
        elif opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif opcode.name.startswith("EXT"):
            yield f"extension {argument} of copyreg"
