"""Published data sets from small files of their own formats, and each bad file in one line."""

from __future__ import annotations

import os
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import data_files as files
import numpy as np
import pytest
import torch
from PIL import Image

from robustkit.data import Subset, cifar_files, describe, rooted
from robustkit.data.cifar import CIFAR10, CIFAR100, COARSE, GROUPS
from robustkit.data.mnist import FashionMNIST
from robustkit.data.svhn import SVHN
from robustkit.data.tiny_imagenet import TinyImageNet
from robustkit.errors import RobustkitError, UnsafeFileError
from robustkit.interfaces import Dataset, Images
from robustkit.testing import checks

REAL = os.environ.get("ROBUSTKIT_DATA")
LABELS = np.array([3, 0, 9, 0, 1, 2, 4, 5, 6, 7, 8, 1])
PIXELS = files.pixels(len(LABELS))
FINE = np.array([0, 99, 41, 0, 7])
ORIGINALS = {
    "cifar-10-batches-bin": "binary",
    "cifar-10-binary.tar.gz": "binary",
    "cifar-10-batches-py": "python",
    "cifar-10-python.tar.gz": "python",
}
COPIES = ["cifar10-png", "cifar10-png.tar", "cifar10-jpg", "cifar10-jpg.tar.xz", "cifar10-jpg.tgz"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of data, and no network."""
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ROBUSTKIT_CACHE", str(tmp_path / "cache"))

    def offline(remote: rooted.Remote, folder: str) -> None:
        raise RuntimeError(f"no way to {remote.urls[-1]}\nand more")

    monkeypatch.setattr(rooted, "_download", offline)
    return tmp_path / "data"


def refusal(what: str, dataset: Dataset, part: str = "train") -> str:
    """The one line in which opening a part is refused; it holds `what`."""
    with pytest.raises(RobustkitError) as caught:
        dataset.split(part)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert what in message
    return message


def everything(images: Images) -> np.ndarray:
    return images.take(torch.arange(len(images))).numpy()


def write(root: Path, name: str) -> Dataset:
    """A small instance of a data set, on disk."""
    if name in ORIGINALS:
        files.put(root / name, files.cifar10_batches(LABELS, PIXELS, ORIGINALS[name]))
        return CIFAR10()
    if name in COPIES:
        kind = name[8:11]
        files.put(root / name, files.cifar10_images(LABELS, PIXELS, kind))
        return CIFAR10()
    if name.startswith("cifar-100"):
        form = "binary" if "binary" in name else "python"
        coarse = np.array([COARSE[CIFAR100.class_names[label]] for label in FINE])
        files.put(root / name, files.cifar100_batches(FINE, coarse, PIXELS[: len(FINE)], form))
        return CIFAR100()
    if name == "svhn":
        files.svhn(root, np.array([1, 10, 9]), PIXELS[:3])
        return SVHN()
    if name == "tiny-imagenet":
        files.tiny_imagenet(root)
        return TinyImageNet()
    raw = root / "FashionMNIST" / "raw"
    for stem in ("train", "t10k"):
        files.write_idx(raw / f"{stem}-images-idx3-ubyte.gz", PIXELS[:3, 0, :28, :28])
        files.write_idx(raw / f"{stem}-labels-idx1-ubyte.gz", np.array([9, 0, 5], np.uint8))
    return FashionMNIST()


INSTANCES = [
    *ORIGINALS,
    *COPIES,
    *("cifar-100-binary", "cifar-100-binary.tar.gz", "cifar-100-python", "cifar-100-python.tar.gz"),
    *("svhn", "tiny-imagenet", "fashion-mnist"),
]


@pytest.mark.parametrize("name", INSTANCES)
def test_each_keeps_the_contract_of_data_sets(root: Path, name: str) -> None:
    dataset = write(root, name)
    assert dataset.found() is not None  # type: ignore[attr-defined]
    for one in checks("dataset"):
        one.run(dataset)


# CIFAR


@pytest.mark.parametrize("name", ORIGINALS)
def test_cifar10_gives_the_published_pixels_in_their_order(root: Path, name: str) -> None:
    train, test = (write(root, name).split(part) for part in ("train", "test"))
    assert np.array_equal(everything(train), PIXELS)
    assert train.labels.tolist() == LABELS.tolist()
    assert np.array_equal(everything(test), PIXELS[:2])
    assert list(train.classes) == files.CIFAR10
    assert train.remark == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COPIES)
def test_cifar10_of_image_files_is_by_class_and_says_what_it_is(root: Path, name: str) -> None:
    train = write(root, name).split("train")
    by_class = np.argsort(LABELS, kind="stable")
    assert train.labels.tolist() == LABELS[by_class].tolist()
    assert list(train.classes) == files.CIFAR10
    kind = name[8:11]
    encoded = [BytesIO(files.image(x, kind)) for x in PIXELS[by_class]]
    seen = [np.asarray(Image.open(image)).transpose(2, 0, 1) for image in encoded]
    assert np.array_equal(everything(train), seen)
    remark = train.remark  # type: ignore[attr-defined]
    assert remark == describe(Subset(train, torch.tensor([0]))).get("remark", "")
    assert ("JPEG copy" in remark and name in remark) if kind == "jpg" else remark == ""


def test_the_published_pixels_come_before_a_copy(root: Path) -> None:
    for name in ("cifar10-jpg", "cifar-10-batches-py"):
        write(root, name)
    assert CIFAR10().found() == root / "cifar-10-batches-py"
    assert CIFAR10(root=root / "cifar10-jpg").found() == root / "cifar10-jpg"


def test_an_archive_is_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write(root, "cifar10-jpg.tar.xz")
    first = everything(dataset.split("train"))
    monkeypatch.setattr(cifar_files, "contents", lambda *_: pytest.fail("it is unpacked again"))
    again = dataset.split("train")
    assert np.array_equal(everything(again), first)
    assert isinstance(again._array, np.memmap)  # type: ignore[attr-defined]


def test_an_archive_that_changes_is_read_again(root: Path) -> None:
    dataset = write(root, "cifar10-png.tar")
    dataset.split("train")
    place = root / "cifar10-png.tar"
    files.put(place, files.cifar10_images(LABELS, 255 - PIXELS, "png"))
    os.utime(place, ns=(1, 1))
    by_class = np.argsort(LABELS, kind="stable")
    assert np.array_equal(everything(dataset.split("train")), 255 - PIXELS[by_class])


@pytest.mark.parametrize("name", [name for name in INSTANCES if name.startswith("cifar-100")])
def test_cifar100_fine_and_coarse(root: Path, name: str) -> None:
    fine = write(root, name).split("train")
    coarse = CIFAR100(labels="coarse").split("train")
    assert [fine.classes[label] for label in fine.labels] == [
        *("apple", "worm", "lawn_mower", "apple", "beetle"),
    ]
    assert [coarse.classes[label] for label in coarse.labels] == [
        *("fruit_and_vegetables", "non-insect_invertebrates", "vehicles_2"),
        *("fruit_and_vegetables", "insects"),
    ]
    assert coarse.labels.tolist() == [4, 13, 19, 4, 7]
    assert np.array_equal(everything(coarse), PIXELS[:5])


def test_cifar100s_classes_are_a_hundred_in_groups_of_five() -> None:
    assert len(CIFAR100.class_names) == len(set(CIFAR100.class_names)) == 100
    assert {len(names.split()) for names in GROUPS.values()} == {5}
    assert list(GROUPS) == sorted(GROUPS)
    assert len(GROUPS) == 20


def test_cifar_refuses_damaged_batches(root: Path) -> None:
    place = root / "cifar-10-batches-bin"
    write(root, place.name)
    batch = place / "data_batch_3.bin"
    good = batch.read_bytes()
    for damaged in (good[:-1], good + b"x", b""):
        batch.write_bytes(damaged)
        assert str(len(damaged)) in refusal("'data_batch_3.bin'", CIFAR10())
    batch.write_bytes(b"\x0a" + good[1:])
    refusal("label 10 lies outside the 10 classes", CIFAR10())
    batch.unlink()
    refusal("holds no file 'data_batch_3.bin'", CIFAR10())
    assert len(CIFAR10().split("test")) == 2


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar10-jpg.tar.xz"])
def test_cifar_refuses_damaged_archives(root: Path, name: str) -> None:
    dataset = write(root, name)
    whole = (root / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"<html>", b""):
        (root / name).write_bytes(damaged)
        refusal(f"'{root / name}' cannot be read", dataset)


@pytest.mark.parametrize("form", ["cifar10-png", "cifar10-png.tar"])
def test_a_copy_must_have_cifars_classes_and_size(root: Path, form: str) -> None:
    own = files.cifar10_images(LABELS, PIXELS, "png")
    plane = {name.replace("airplane", "plane"): data for name, data in own.items()}
    files.put(root / form, plane)
    assert "'airplane'" in refusal("'plane'", CIFAR10())
    for path in sorted((root / form).rglob("*"), reverse=True) if (root / form).is_dir() else []:
        path.rmdir() if path.is_dir() else path.unlink()
    files.put(root / form, {name: data for name, data in own.items() if "horse" not in name})
    refusal("class 'horse'", CIFAR10())
    files.put(root / form, own)
    os.utime(root / form, ns=(1, 1))
    CIFAR10().split("train")
    files.put(root / form, files.cifar10_images(LABELS, files.pixels(12, 28), "png"))
    os.utime(root / form, ns=(2, 2))
    refusal("28x28", CIFAR10())


# Pickles


class Evil:
    """Makes a folder when a pickle of it is loaded as usual."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("inside", [True, False])
def test_a_pickle_that_would_run_something_is_refused_and_not_run(
    root: Path, protocol: int, inside: bool
) -> None:
    write(root, "cifar-10-batches-py")
    marker = root / "ran"
    value = {b"data": [Evil(marker)], b"labels": [0]} if inside else Evil(marker)
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(value, protocol))
    line = refusal("would run 'posix.mkdir'", CIFAR10())
    assert "'data_batch_2'" in line
    assert not marker.exists()
    with pytest.raises(UnsafeFileError):
        CIFAR10().split("train")


def test_pickles_of_python_3_are_read_too(root: Path) -> None:
    write(root, "cifar-10-batches-py")
    table = {"data": PIXELS[:2].reshape(2, -1), "labels": [7, 8], "batch_label": b"one of five"}
    for protocol in (2, 3, 4):
        data = pickle.dumps(table, protocol)
        (root / "cifar-10-batches-py" / "test_batch").write_bytes(data)
        test = CIFAR10().split("test")
        assert np.array_equal(everything(test), PIXELS[:2])
        assert test.labels.tolist() == [7, 8]


def test_tables_of_something_else_are_refused(root: Path) -> None:
    write(root, "cifar-10-batches-py")
    x = PIXELS[:2].reshape(2, -1)
    for what, table in (
        ("holds no array 'data'", {"labels": [1, 2]}),
        ("holds no array 'data'", {"data": x[:, 1:], "labels": [1, 2]}),
        ("'f8', not uint8", {"data": x.astype(float), "labels": [1, 2]}),
        ("holds no list 'labels' of 2", {"data": x, "labels": [1]}),
        ("holds no list 'labels'", {"data": x, "labels": [1, -1]}),
        ("holds no list 'labels'", {"data": x, "fine_labels": [1, 2]}),
        ("label 10 lies outside", {"data": x, "labels": [1, 10]}),
        ("not a readable pickle", [1, 2]),
    ):
        place = root / "cifar-10-batches-py" / "test_batch"
        place.write_bytes(pickle.dumps(table, 2))
        refusal(what, CIFAR10(), "test")


# SVHN


def test_svhns_label_10_is_the_digit_0(root: Path) -> None:
    train = write(root, "svhn").split("train")
    assert train.labels.tolist() == [1, 0, 9]
    assert train.classes == tuple("0123456789")
    assert np.array_equal(everything(train), PIXELS[:3])


def test_svhn_refuses_what_it_cannot_use(root: Path) -> None:
    write(root, "svhn")
    file = root / "SVHN" / "train_32x32.mat"
    whole = file.read_bytes()
    for damaged in (whole[:-40], whole[:100], b"<html>", b""):
        file.write_bytes(damaged)
        refusal("not a readable .mat file", SVHN())
    for labels, what in (([0, 1, 2], "label 0 lies outside 1..10"), ([1, 11, 2], "label 11")):
        files.svhn(root, np.array(labels), PIXELS[:3])
        refusal(what, SVHN())
    files.svhn(root, np.array([1, 2]), PIXELS[:3])
    refusal("not 3 integers", SVHN())
    files.svhn(root, np.array([1, 2, 3]), PIXELS[:3, :1])
    refusal("not uint8 (32, 32, 3, N)", SVHN())
    files.svhn(root, np.array([1, 2, 3]), PIXELS[:3].astype(float))
    refusal("X is float64", SVHN())


# Tiny-ImageNet


def test_tiny_imagenet_tests_on_its_validation_part(root: Path) -> None:
    train, test = (write(root, "tiny-imagenet").split(part) for part in ("train", "test"))
    assert train.classes == ("jay", "goldfish")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert everything(train)[:, 0, 0, 0].tolist() == [0, 30, 60, 90]
    assert test.labels.tolist() == [1, 0, 1]
    assert everything(test)[:, :, 9, 9].tolist() == [[120] * 3, [150] * 3, [180] * 3]
    assert isinstance(train._array, np.memmap)  # type: ignore[attr-defined]


def test_tiny_imagenet_is_in_colour_where_a_part_is_grey(root: Path) -> None:
    place = files.tiny_imagenet(root)
    for path in (place / "train").rglob("*.JPEG"):
        Image.new("L", (64, 64), 9).save(path, "jpeg")
    assert TinyImageNet().split("train").shape == (3, 64, 64)


def test_tiny_imagenets_like_words_stay_apart(root: Path) -> None:
    write(root, "tiny-imagenet")
    words = root / "tiny-imagenet-200" / "words.txt"
    words.write_text("n01\tcrane, bird\nn02\tcrane, machine\n")
    names = TinyImageNet().split("train").classes
    assert names == ("crane, bird (n01)", "crane, machine (n02)")


def test_tiny_imagenet_refuses_what_it_cannot_use(root: Path) -> None:
    place = files.tiny_imagenet(root)
    annotations, words = place / "val" / "val_annotations.txt", place / "words.txt"
    good = annotations.read_text()
    annotations.write_text(good.replace("n01", "n04"))
    assert "line 2" in refusal("class 'n04' has no folder", TinyImageNet(), "test")
    annotations.write_text(good.replace("val_1", "val_7"))
    assert "line 2" in refusal("val_7.JPEG", TinyImageNet(), "test")
    annotations.write_text("")
    refusal("names no images", TinyImageNet(), "test")
    annotations.unlink()
    refusal(f"'{annotations}' cannot be read", TinyImageNet(), "test")
    words.write_text("n01\tjay\n")
    refusal("no line for class 'n02'", TinyImageNet())
    (place / "train" / "n02" / "images").rename(place / "elsewhere")
    refusal("holds no images", TinyImageNet())


# Fashion-MNIST, and what all have in common


def test_fashion_mnist_has_names(root: Path) -> None:
    train = write(root, "fashion-mnist").split("train")
    names = [train.classes[label] for label in train.labels]
    assert names == ["Ankle boot", "T-shirt/top", "Sandal"]
    assert np.array_equal(everything(train)[:, 0], PIXELS[:3, 0, :28, :28])


@pytest.mark.parametrize(
    ("dataset", "wanted"),
    [
        (CIFAR10(), "cifar-10-python.tar.gz"),
        (CIFAR100(), "cifar-100-python.tar.gz"),
        (SVHN(), "train_32x32.mat"),
        (FashionMNIST(), "idx files"),
        (TinyImageNet(), "words.txt"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_is_missing_is_said_with_where_it_belongs(
    root: Path, dataset: rooted.Rooted, wanted: str
) -> None:
    assert dataset.found() is None
    line = refusal(wanted, dataset)
    assert str(dataset.place) in line
    assert "ROBUSTKIT_DATA" in line
    assert ("no way to http" in line) == dataset.fetched
    assert not root.exists()


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-100-python.tar.gz", "svhn"])
def test_what_is_missing_is_fetched(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path / "publisher"))
    dataset, asked = write(tmp_path / "publisher", name), []
    monkeypatch.setenv("ROBUSTKIT_DATA", str(root))

    def fetch(remote: rooted.Remote, folder: str) -> None:
        asked.append(remote)
        (whole,) = (tmp_path / "publisher").rglob(remote.name)
        (Path(folder) / remote.name).write_bytes(whole.read_bytes())

    monkeypatch.setattr(rooted, "_download", fetch)
    assert len(dataset.split("test")) > 0
    dataset.split("test")
    assert len(asked) == 1
    assert asked[0].urls[0].startswith("http")
    assert len(asked[0].md5) == 32


@pytest.mark.skipif(not REAL, reason="ROBUSTKIT_DATA names no folder of data")
def test_real_cifar10_of_jpeg_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = CIFAR10(root=Path(REAL or ""))
    if not str(dataset.found()).endswith("cifar10-jpg.tar.xz"):
        pytest.skip("no JPEG copy is there")
    test = dataset.split("test")
    said = describe(test)
    assert said["counts"] == [1000] * 10
    assert said["mean"] == pytest.approx([0.494, 0.485, 0.450], abs=2e-3)
    assert "JPEG copy" in said["remark"]


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="ROBUSTKIT_DATA names no folder of data")
def test_real_cifar10_is_whole() -> None:
    said = describe(CIFAR10(root=Path(REAL or "")).split("train"))
    assert said["counts"] == [5000] * 10
    assert said["mean"] == pytest.approx([0.491, 0.482, 0.447], abs=2e-3)
