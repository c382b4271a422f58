"""Data sets that Hugging Face's `datasets` reads, from its hub or from local files."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robustkit.data.decode import Encoded, fingerprint, kept, write_images
from robustkit.data.images import SPLIT_SEED, TEST_SHARE, ArrayImages, Subset
from robustkit.data.places import find
from robustkit.data.splits import hold_out
from robustkit.errors import BadValueError, UnknownNameError
from robustkit.interfaces import Dataset, Images

EXTRA = "pip install 'robustkit[datasets]'"


class HuggingFace(Dataset):
    """Images and labels of a data set that the library `datasets` reads.

    `path` is a name on the hub, a local folder of parquet, arrow or image files, or one written by
    save_to_disk. Without a split for testing, a fixed fifth of each class of the training split is
    the test part. Images are grey where all are, else RGB; they are decoded once and mapped.
    """

    name: ClassVar[str] = "huggingface"
    path: str = Field(description="name on the hub, or a local folder")
    config: str | None = Field(default=None, description="which of its configurations, if several")
    train: str = Field(default="train", description="split to train on")
    test: str = Field(default="test", description="split to test on")
    image: str = Field(default="image", description="column of the images")
    label: str = Field(default="label", description="column of the labels")
    size: int | None = Field(
        default=None, ge=1, le=4096, description="height and width that images are resized to"
    )

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError for what is missing, naming what there is."""
        tables = self._tables()
        parted = self.test in tables or list(tables) != [self.train]
        names = {"train": self.train, "test": self.test if parted else self.train}
        for split in names.values():
            if split not in tables:
                raise UnknownNameError("split", split, tables, f"a split of '{self.path}'")
        chosen = names[part]
        classes, labels = self._labels(tables, chosen)
        images = ArrayImages(self._pixels(tables[chosen]), labels, classes, f"'{self.path}'")
        if parted:
            return images
        train, test = hold_out(images.labels, TEST_SHARE, SPLIT_SEED)
        return Subset(images, train if part == "train" else test)

    def _tables(self) -> dict[str, Any]:
        """Read the splits, by name."""
        library, path = _library(), self.path
        # On the hub, names are OWNER/NAME or NAME.
        if path.startswith(("/", ".", "~")) or Path(path).exists():
            path = str(find(Path(path), "data folder"))
        saved = any((Path(path) / name).is_file() for name in ("dataset_dict.json", "state.json"))
        try:
            read = (
                library.load_from_disk(path) if saved else library.load_dataset(path, self.config)
            )
        # The library has errors of its own for what is missing, unreachable or damaged.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadValueError(f"data set '{self.path}' cannot be read: {reason}") from None
        return dict(read) if isinstance(read, dict) else {self.train: read}

    def _column(self, table: Any, name: str) -> Any:
        if name not in table.features:
            raise UnknownNameError("column", name, table.features, f"a column of '{self.path}'")
        return table.features[name]

    def _labels(self, tables: dict[str, Any], chosen: str) -> tuple[list[str], NDArray[np.int64]]:
        """Give the class names of all splits that are used, and the labels (N,) of one."""
        used = [tables[split] for split in (self.train, self.test) if split in tables]
        feature, *_ = [self._column(table, self.label) for table in used]
        dtype = str(getattr(feature, "dtype", ""))
        if "string" not in dtype and "int" not in dtype:
            raise BadValueError(
                f"column '{self.label}' of '{self.path}' holds {dtype or type(feature).__name__},"
                " neither names nor labels"
            )
        seen = {value for table in used for value in table.unique(self.label)} - {None}
        if "string" in dtype:
            classes = sorted(seen)
            places: dict[Any, int] = {name: place for place, name in enumerate(classes)}
        else:
            numbers = range(max(seen, default=-1) + 1)
            classes = list(getattr(feature, "names", None) or map(str, numbers))
            places = {value: value for value in seen}
        values = tables[chosen][self.label][:]
        return classes, np.array([places.get(value, -1) for value in values], dtype=np.int64)

    def _pixels(self, table: Any) -> Any:
        feature = self._column(table, self.image)
        if type(feature).__name__ != "Image":
            raise BadValueError(
                f"column '{self.image}' of '{self.path}' holds {type(feature).__name__}, not Image"
            )
        encoded = table.cast_column(self.image, type(feature)(decode=False))
        images = [
            Encoded(f"{self.path}[{row}]", partial(_open, encoded, row, self.image))
            for row in range(len(encoded))
        ]
        key = f"huggingface-{fingerprint(table._fingerprint, self.image, self.size)}"
        return kept(key, lambda out: write_images(out, images, self.size))


def _open(table: Any, row: int, column: str) -> Path | BinaryIO:
    image = table[row][column]
    return BytesIO(image["bytes"]) if image["bytes"] else Path(image["path"])


def _library() -> Any:
    """Import the library. Raises BadValueError, saying how to install it."""
    try:
        import datasets
    except ImportError:
        raise BadValueError(
            f"data set 'huggingface' needs the library 'datasets': {EXTRA}"
        ) from None
    return datasets
