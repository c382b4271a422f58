"""A folder, or a tar archive of one, as a table of its files."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from robustkit.errors import BadValueError


def contents(path: Path, depth: int, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Read the wanted files of a folder or a tar archive, packed or not, sorted by name.

    A file is named by the last `depth` parts of its path. Raises BadValueError for an archive that
    is damaged.
    """
    found = {}
    try:
        if path.is_dir():
            for file in path.rglob("*"):
                if wanted(name := _name(file.as_posix(), depth)) and file.is_file():
                    found[name] = file.read_bytes()
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    if wanted(name := _name(member.name, depth)) and member.isfile():
                        opened = archive.extractfile(member)
                        found[name] = opened.read() if opened else b""
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadValueError(f"'{path}' cannot be read: {reason}") from None
    return dict(sorted(found.items()))


def _name(path: str, depth: int) -> str:
    return "/".join(PurePosixPath(path).parts[-depth:])
