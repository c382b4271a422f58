"""Data sets that the library `datasets` reads, from local files and without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustkit.data.huggingface import HuggingFace
from robustkit.errors import BadValueError, RobustkitError
from robustkit.interfaces import Images
from robustkit.testing import checks

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)


def test_without_the_library_a_line_says_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadValueError, match=r"needs the library.*robustkit\[datasets\]"):
        HuggingFace(path="owner/name").split("train")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, keeping what it keeps in a folder of the test, and off the network."""
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    monkeypatch.setattr(found.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("ROBUSTKIT_CACHE", str(tmp_path / "cache"))
    found.disable_progress_bars()
    return found


def table(
    library: Any,
    labels: list[Any],
    feature: Any,
    first: int = 0,
    image: str = "image",
    label: str = "label",
) -> Any:
    """A table of images and labels."""
    images = [Image.fromarray(x) for x in PIXELS[first : first + len(labels)]]
    features = library.Features({image: library.Image(), label: feature})
    return library.Dataset.from_dict({image: images, label: labels}, features=features)


def animals(library: Any, labels: list[Any], first: int = 0) -> Any:
    return table(library, labels, library.ClassLabel(names=["dog", "cat"]), first)


def pixels(images: Images) -> np.ndarray:
    return images.take(torch.arange(len(images))).numpy().transpose(0, 2, 3, 1)


def refusal(what: str, **options: Any) -> None:
    with pytest.raises(RobustkitError) as caught:
        HuggingFace(**options).split("train")
    assert "\n" not in str(caught.value)
    assert what in str(caught.value)


def test_a_folder_of_parquet(library: Any, tmp_path: Path) -> None:
    own = tmp_path / "own"
    animals(library, [0, 1, 1, 0]).to_parquet(own / "train-00000-of-00001.parquet")
    animals(library, [1, 0], first=4).to_parquet(own / "test-00000-of-00001.parquet")
    dataset = HuggingFace(path=str(own))
    for part, labels, shown in (
        ("train", [0, 1, 1, 0], PIXELS[:4]),
        ("test", [1, 0], PIXELS[4:6]),
    ):
        images = dataset.split(part)  # type: ignore[arg-type]
        assert images.classes == ("dog", "cat")
        assert images.labels.tolist() == labels
        assert np.array_equal(pixels(images), shown)
        assert isinstance(images._array, np.memmap)  # type: ignore[attr-defined]
    for one in checks("dataset"):
        one.run(dataset)


def test_what_was_saved_to_disk_in_one_piece(library: Any, tmp_path: Path) -> None:
    for name, saved in (
        ("splits", library.DatasetDict(train=animals(library, [0, 1] * 5))),
        ("single", animals(library, [0, 1] * 5)),
    ):
        saved.save_to_disk(tmp_path / name)
        dataset = HuggingFace(path=str(tmp_path / name))
        train, test = dataset.split("train"), dataset.split("test")
        assert train.labels.bincount().tolist() == [4, 4]
        assert test.labels.bincount().tolist() == [1, 1]
        seen = [x.tobytes() for part in (train, test) for x in pixels(part)]
        assert sorted(seen) == sorted(x.tobytes() for x in PIXELS)


def test_labels_of_other_types(library: Any, tmp_path: Path) -> None:
    for name, values, feature, classes, labels in (
        ("words", ["b", "a", None, "b"], "string", ("a", "b"), [1, 0, -1, 1]),
        ("numbers", [2, 0, -1, None], "int64", ("0", "1", "2"), [2, 0, -1, -1]),
    ):
        parts = library.DatasetDict(
            train=table(library, values, library.Value(feature)),
            test=table(library, values[:2], library.Value(feature)),
        )
        parts.save_to_disk(tmp_path / name)
        images = HuggingFace(path=str(tmp_path / name)).split("train")
        assert images.classes == classes
        assert images.labels.tolist() == labels


def test_names_of_splits_and_columns_are_options(library: Any, tmp_path: Path) -> None:
    feature = library.ClassLabel(names=["dog", "cat"])
    library.DatasetDict(
        learn=table(library, [0, 1], feature, 0, "img", "fine_label"),
        validation=table(library, [1], feature, 5, "img", "fine_label"),
    ).save_to_disk(tmp_path / "own")
    path, columns = str(tmp_path / "own"), {"image": "img", "label": "fine_label"}
    test = HuggingFace(path=path, train="learn", test="validation", size=3, **columns).split("test")
    assert (test.labels.tolist(), test.shape) == ([1], (3, 3, 3))
    refusal("unknown split 'train'", path=path, **columns)
    refusal("unknown split 'test'", path=path, train="learn", **columns)
    splits = {"path": path, "train": "learn", "test": "validation"}
    refusal("unknown column 'label'; did you mean 'fine_label'", image="img", **splits)
    refusal("unknown column 'image'", label="fine_label", **splits)
    refusal("holds ClassLabel, not Image", image="fine_label", label="fine_label", **splits)
    refusal("neither names nor labels", image="img", label="img", **splits)


def test_what_is_not_there_or_damaged_is_refused(library: Any, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    refusal("did you mean 'own'?", path=str(tmp_path / "owm"))
    refusal("cannot be read", path=str(tmp_path / "own"))
    (tmp_path / "own" / "train.parquet").write_bytes(b"PAR1 no")
    refusal("cannot be read", path=str(tmp_path / "own"))
    refusal("'no-such/thing' cannot be read", path="no-such/thing")
