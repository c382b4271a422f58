"""A folder with one folder of images a class, or of images alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from robustkit.data.decode import decoded
from robustkit.data.images import SPLIT_SEED, TEST_SHARE, ArrayImages, Subset
from robustkit.data.places import find
from robustkit.data.splits import hold_out
from robustkit.errors import BadValueError
from robustkit.interfaces import Dataset, Images

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


class Folder(Dataset):
    """Images below path/{train,test}/<class>/, or path/<class>/ with a fixed fifth for testing.

    Classes are the sorted folder names; without class folders, images have no label. They are grey
    where all are, else RGB (transparency is dropped); they have one size, or are resized to `size`.
    They are decoded once, and kept below ROBUSTKIT_CACHE (default ~/.cache/robustkit) under a hash
    of names, sizes and times.
    """

    name: ClassVar[str] = "folder"
    path: Path = Field(description="the folder")
    size: int | None = Field(
        default=None, ge=1, le=4096, description="height and width that images are resized to"
    )

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError, naming the file, where an image cannot be used."""
        root = find(self.path, "data folder")
        parts = [name for name in ("train", "test") if (root / name).is_dir()]
        if not parts:
            images = class_folders(root, known_classes(root), self.size)
            train, test = hold_out(images.labels, TEST_SHARE, SPLIT_SEED)
            return Subset(images, train if part == "train" else test)
        if len(parts) == 1:
            lacking = "test" if parts == ["train"] else "train"
            raise BadValueError(f"'{root}' has a folder '{parts[0]}' but no '{lacking}'")
        train_classes, test_classes = (known_classes(root / name) for name in parts)
        for odd in sorted(set(train_classes) ^ set(test_classes)):
            only = "train" if odd in train_classes else "test"
            raise BadValueError(f"class '{odd}' is in '{root / only}' alone; both parts need it")
        return class_folders(root / part, train_classes, self.size)


def class_folders(root: Path, classes: list[str], size: int | None = None) -> ArrayImages:
    """Load all images of root/<class>/, resized where asked for; without classes, those of root.

    Raises BadValueError.
    """
    listed = [image_files(root / name) for name in classes] or [image_files(root)]
    known = np.arange(len(classes)) if classes else np.array([-1])
    labels = np.repeat(known, [len(files) for files in listed])
    files = [file for of_class in listed for file in of_class]
    return ArrayImages(decoded(root, files, size), labels, classes, f"'{root}'")


def known_classes(root: Path) -> list[str]:
    """List the class folders, sorted; none where images lie in the folder itself instead.

    Raises BadValueError where there is neither.
    """
    inside = [p for p in root.iterdir() if not p.name.startswith(".")] if root.is_dir() else []
    folders = any(p.is_dir() for p in inside)
    alone = not folders and any(p.suffix.lower() in SUFFIXES for p in inside)
    return [] if alone else class_names(root)


def class_names(root: Path) -> list[str]:
    """List the class folders, sorted. Raises BadValueError where there is none."""
    if not root.is_dir():
        raise BadValueError(f"'{root}' is not a folder")
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise BadValueError(f"'{root}' has no class folders")
    return names


def image_files(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the images in a folder, sorted. Raises BadValueError where there is none."""
    inside = folder.iterdir() if folder.is_dir() else ()
    files = sorted(p for p in inside if p.suffix.lower() in suffixes and not p.name.startswith("."))
    if not files:
        raise BadValueError(f"'{folder}' holds no images ({', '.join(sorted(suffixes))})")
    return files
