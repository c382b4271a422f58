"""Tiny-ImageNet, from its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robustkit.data.decode import decoded
from robustkit.data.folder import class_names, image_files
from robustkit.data.images import ArrayImages
from robustkit.data.rooted import Rooted
from robustkit.errors import BadValueError, nearest
from robustkit.interfaces import Images


class TinyImageNet(Rooted):
    """100,000 and 10,000 photographs of 200 classes, of 64x64 pixels in colour.

    Source: Y. Le and X. Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS 231N, 2015.
    Reads root/tiny-imagenet-200 as it is unpacked from its .zip; its validation part, which has
    labels, is the test part. Classes are in the order of their WordNet ids; their names are the
    first word of words.txt. Images are decoded once and mapped, as those of `folder` are.
    """

    name: ClassVar[str] = "tiny-imagenet"
    folder: ClassVar[str] = "tiny-imagenet-200"
    wanted: ClassVar[str] = "the contents of its .zip (train, val, words.txt)"
    fetched: ClassVar[bool] = False

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError for what is missing or damaged, naming the file."""
        root = self.found()
        if root is None:
            raise self.missing()
        ids = class_names(root / "train")
        files, labels = _train(root, ids) if part == "train" else _validation(root, ids)
        names = _names(root / "words.txt", ids)
        return ArrayImages(
            decoded(root, files, None, "RGB"), np.array(labels), names, f"'{root / part}'"
        )

    def found(self) -> Path | None:
        """Give the folder, where it is there."""
        return self.place if (self.place / "train").is_dir() else None


def _train(root: Path, ids: list[str]) -> tuple[list[Path], list[int]]:
    listed = [image_files(root / "train" / wnid / "images") for wnid in ids]
    labels = [label for label, files in enumerate(listed) for _ in files]
    return [file for files in listed for file in files], labels


def _validation(root: Path, ids: list[str]) -> tuple[list[Path], list[int]]:
    """List images and labels as val_annotations.txt does: file, WordNet id, box."""
    annotations, places = root / "val" / "val_annotations.txt", {w: i for i, w in enumerate(ids)}
    files, labels = [], []
    for number, line in enumerate(_lines(annotations), 1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in places:
            raise BadValueError(
                f"'{annotations}' line {number}: class '{wnid}' has no folder in train"
                f"{nearest(wnid, places)}"
            )
        files.append(root / "val" / "images" / Path(file).name)
        labels.append(places[wnid])
        if not files[-1].is_file():
            raise BadValueError(f"'{annotations}' line {number}: there is no '{files[-1]}'")
    if not files:
        raise BadValueError(f"'{annotations}' names no images")
    return files, labels


def _names(words: Path, ids: list[str]) -> list[str]:
    """Give the first word for each WordNet id; all words where two would have the same first."""
    full = dict(line.split("\t", 1) for line in _lines(words) if "\t" in line)
    if unknown := [wnid for wnid in ids if wnid not in full]:
        raise BadValueError(f"'{words}' has no line for class '{unknown[0]}'")
    first = [full[wnid].split(",")[0].strip() for wnid in ids]
    return [
        name if first.count(name) == 1 else f"{full[wnid].strip()} ({wnid})"
        for name, wnid in zip(first, ids, strict=True)
    ]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadValueError(f"'{path}' cannot be read: {reason}") from None
