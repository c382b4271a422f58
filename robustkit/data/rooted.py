"""Published data sets: known files below a folder, fetched where they are missing and can be."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import ClassVar, NamedTuple

from pydantic import Field

from robustkit.data.places import home
from robustkit.errors import BadValueError
from robustkit.files import write_whole
from robustkit.interfaces import Dataset


class Remote(NamedTuple):
    """A file as its publisher and mirrors give it."""

    urls: tuple[str, ...]
    name: str
    md5: str


class Rooted(Dataset):
    """A data set of known files below a folder that `root` or ROBUSTKIT_DATA names."""

    folder: ClassVar[str] = ""
    """Where below the root the files lie."""
    wanted: ClassVar[str]
    """The files, in words."""
    fetched: ClassVar[bool] = True
    """Whether they can be had from their publisher, when they are used first."""
    root: Path | None = Field(
        default=None,
        description="folder that holds the files; default: ROBUSTKIT_DATA or ~/.cache/robustkit",
    )

    @property
    def place(self) -> Path:
        """The folder that the files are looked for in."""
        return (self.root.expanduser() if self.root else home("ROBUSTKIT_DATA")) / self.folder

    def found(self) -> Path | None:
        """Give the file or folder that images are read from, where there is one."""
        raise NotImplementedError

    def missing(self, reason: str = "") -> BadValueError:
        """Make the error that says what to put where."""
        why = f" and cannot be fetched ({reason})" if reason else ""
        holder = f"the folder that holds {self.folder}" if self.folder else "their folder"
        return BadValueError(
            f"{self.name} is not in '{self.place}'{why}: put {self.wanted} there, or name {holder}"
            " by ROBUSTKIT_DATA"
        )

    def fetch(self, files: Iterable[Remote]) -> None:
        """Download files, each checked, and whole or not at all. Raises what `missing` makes."""
        try:
            for file in files:
                with tempfile.TemporaryDirectory() as apart:
                    _download(file, apart)
                    with (Path(apart) / file.name).open("rb") as whole:
                        write_whole(self.place / file.name, partial(copyfileobj, whole))
        except (OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise self.missing(reason) from None


def _download(file: Remote, folder: str) -> None:
    """Download a file from the first mirror that gives it. Raises the last one's error."""
    from torchvision.datasets.utils import download_url

    *mirrors, last = file.urls
    # Its progress goes to stderr, its failed mirrors to stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        for url in mirrors:
            with contextlib.suppress(OSError, RuntimeError):
                return download_url(url, folder, file.name, file.md5)
        return download_url(last, folder, file.name, file.md5)
