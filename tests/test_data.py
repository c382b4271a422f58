"""Data sets, splits, batches, augmentation: hand-made data, and each bad input in one line."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robustkit.data import (
    ArrayImages,
    Batches,
    DeviceImages,
    Subset,
    describe,
    hold_out,
    unit,
)
from robustkit.data import batches as batches_module
from robustkit.data import rooted as rooted_module
from robustkit.data.digits import Digits
from robustkit.data.folder import Folder
from robustkit.data.mnist import MNIST
from robustkit.data.npz import Npz
from robustkit.data.rooted import Remote
from robustkit.errors import BadValueError

REAL = os.environ.get("ROBUSTKIT_DATA")
FROZEN = [3, 10, 12, 13, 16, 17]
FROZEN_DIGITS = [6, 9, 5, 5, 9, 7, 5, 0, 2, 7, 8, 0]


def images(n: int = 30, classes: int = 3, shape: tuple[int, int, int] = (2, 4, 5)) -> ArrayImages:
    array = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    return ArrayImages(array, np.arange(n) % classes, [f"c{k}" for k in range(classes)])


def refusal(what: str, act) -> str:
    """The one line in which `act` is refused; it holds `what`."""
    with pytest.raises(BadValueError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert what in message
    return message


# Images


def test_take_gives_the_images_asked_for_in_order():
    array = np.arange(3 * 2, dtype=np.uint8).reshape(3, 1, 1, 2)
    own = ArrayImages(array, np.array([1, 0, -1]), ["a", "b"])
    assert own.take(torch.tensor([2, 0])).tolist() == [[[[4, 5]]], [[[0, 1]]]]
    assert own.labels.tolist() == [1, 0, -1]
    some = Subset(own, torch.tensor([2, 1]))
    assert some.take(torch.tensor([0])).flatten().tolist() == [4, 5]
    assert (len(some), some.labels.tolist(), some.classes) == (2, [-1, 0], ("a", "b"))


def test_images_that_are_none_are_refused():
    good = np.zeros((2, 1, 3, 3), np.uint8)
    refusal("float64", lambda: ArrayImages(good / 255, np.zeros(2, int), ["a"]))
    refusal("2 images but 3 labels", lambda: ArrayImages(good, np.zeros(3, int), ["a"]))
    refusal("label 4 lies outside", lambda: ArrayImages(good, np.array([0, 4]), ["a", "b"]))
    refusal("label -2", lambda: ArrayImages(good, np.array([0, -2]), ["a", "b"]))
    refusal("integer", lambda: ArrayImages(good, np.array([0.0, 1.0]), ["a", "b"]))
    refusal("same name", lambda: ArrayImages(good, np.array([0, 1]), ["a", "a"]))


def test_unit_is_the_nearest_float_to_each_level():
    levels = torch.arange(256, dtype=torch.uint8)
    exact = torch.from_numpy((np.arange(256) / 255).astype(np.float32))
    assert torch.equal(unit(levels), exact)


def test_describe_by_hand():
    array = np.array([[0, 255], [255, 255]], np.uint8).reshape(2, 1, 1, 2).repeat(2, axis=1)
    array[:, 1] = 51
    said = describe(ArrayImages(array, np.array([1, -1]), ["a", "b"]))
    assert said["counts"] == [0, 1]
    assert said["unknown"] == 1
    assert said["mean"] == pytest.approx([0.75, 0.2])
    assert said["std"] == pytest.approx([np.sqrt(0.1875), 0.0])
    assert (said["n"], said["shape"], said["classes"]) == (2, [2, 1, 2], ["a", "b"])


# Splits


def test_hold_out_keeps_the_shares_of_classes():
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 70)
    kept, heldout = hold_out(labels, 0.1, seed=3)
    assert labels[heldout].bincount().tolist() == [1, 2, 7]
    assert sorted(kept.tolist() + heldout.tolist()) == list(range(100))


def test_hold_out_is_the_same_for_ever():
    """Frozen values: a split that changes between versions mixes training and test points."""
    _, heldout = hold_out(torch.arange(20) % 4, 6, seed=0)
    assert heldout.tolist() == FROZEN
    assert hold_out(torch.arange(20) % 4, 6, seed=1)[1].tolist() != FROZEN


@given(
    labels=st.lists(st.integers(-1, 4), min_size=2, max_size=60),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_hold_out_meets_the_count_and_splits_every_point(labels, seed, data):
    count = data.draw(st.integers(1, len(labels) - 1))
    y = torch.tensor(labels)
    kept, heldout = hold_out(y, count, seed)
    assert len(heldout) == count
    assert sorted(kept.tolist() + heldout.tolist()) == list(range(len(labels)))
    for label in set(labels):
        exact = labels.count(label) * count / len(labels)
        assert abs(int((y[heldout] == label).sum()) - exact) < 1


@pytest.mark.parametrize("part", [0, 0.001, 10, 11, -1, 2.5])
def test_hold_out_refuses_an_empty_side(part):
    refusal("hold out", lambda: hold_out(torch.zeros(10, dtype=torch.long), part, 0))


# Batches


@given(
    n=st.integers(1, 70),
    size=st.integers(1, 40),
    world=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_processes_share_what_one_process_sees(n, size, world, epoch):
    device = DeviceImages(images(n))
    whole = [b.ids for b in Batches(device, size, 7).epoch(epoch)]
    shares = [list(Batches(device, size, 7, r, world).epoch(epoch)) for r in range(world)]
    parts = [[batch.ids for batch in share] for share in shares]
    for batches in zip(*shares, strict=True):
        places = torch.cat([batch.place for batch in batches])
        assert torch.equal(places, torch.arange(len(places)))
    assert sorted(torch.cat(whole).tolist()) == list(range(n))
    assert len(whole) == len(Batches(device, size, 7)) == -(-n // size)
    assert max(map(len, whole)) <= size
    assert max(map(len, whole)) - min(map(len, whole)) <= 1
    for step, shards in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(shards), step)
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_order_is_a_function_of_seed_and_epoch():
    device = DeviceImages(images(40))
    first = [b.ids.tolist() for b in Batches(device, 16, 5).epoch(2)]
    again = Batches(device, 16, 5)
    list(again.epoch(0))
    assert [b.ids.tolist() for b in again.epoch(2)] == first
    assert [b.ids.tolist() for b in again.epoch(3)] != first
    assert [b.ids.tolist() for b in Batches(device, 16, 6).epoch(2)] != first


@pytest.mark.parametrize("limit", [0, 2**30])
def test_batches_hold_the_right_points_resident_or_not(limit, monkeypatch):
    monkeypatch.setattr(batches_module, "RESIDENT", limit)
    own = images()
    for batch in Batches(DeviceImages(own), 8, 0).epoch(0):
        assert torch.equal(batch.x, own.take(batch.ids).float() / 255)
        assert torch.equal(batch.y, own.labels[batch.ids])
        assert batch.x.dtype == torch.float32
        assert batch.source.tolist() == [0] * len(batch)


def test_small_data_are_read_once_and_large_data_never_whole(monkeypatch):
    own, asked = images(), []
    take = own.take
    monkeypatch.setattr(own, "take", lambda ids: asked.append(len(ids)) or take(ids))
    list(Batches(DeviceImages(own), 8, 0).epoch(0))
    assert asked == [30]
    asked.clear()
    monkeypatch.setattr(batches_module, "RESIDENT", 0)
    list(Batches(DeviceImages(own), 8, 0).epoch(0))
    assert sum(asked) == 30
    assert max(asked) <= 8


def test_batches_refuse_impossible_processes():
    device = DeviceImages(images())
    refusal("process 2 of 2", lambda: Batches(device, 8, 0, rank=2, world=2))
    refusal("batches of 0", lambda: Batches(device, 0, 0))


# Digits


def test_digits_are_the_same_points_for_ever():
    train, test = Digits().split("train"), Digits().split("test")
    assert (len(train), len(test), train.shape) == (1437, 360, (1, 8, 8))
    assert train.classes == tuple("0123456789")
    everything = [p.take(torch.arange(len(p))) for p in (train, test)]
    assert everything[0].max() == 255
    assert set(torch.cat(everything).unique().tolist()) == {round(v * 255 / 16) for v in range(17)}
    assert test.labels.bincount().tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert test.labels[:12].tolist() == FROZEN_DIGITS


# MNIST


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch) -> Path:
    """A folder of MNIST's files with 5 and 2 points; the test part is packed."""
    folder = tmp_path / "MNIST" / "raw"
    for stem, n, packed in (("train", 5, ""), ("t10k", 2, ".gz")):
        pixels = np.arange(n * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(n, 28, 28)
        write_idx(folder / f"{stem}-images-idx3-ubyte{packed}", pixels)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{packed}", np.arange(n, dtype=np.uint8))
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path))
    return folder


def test_mnist_reads_its_files_plain_and_packed(raw: Path):
    train, test = MNIST().split("train"), MNIST(root=raw.parent.parent).split("test")
    assert (len(train), len(test), train.shape) == (5, 2, (1, 28, 28))
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    assert train.take(torch.tensor([1]))[0, 0, 0, :3].tolist() == [16, 17, 18]


def test_mnist_refuses_damaged_files(raw: Path):
    images_file, labels_file = (raw / f"train-{k}-ubyte" for k in ("images-idx3", "labels-idx1"))
    good, labels = images_file.read_bytes(), labels_file.read_bytes()
    load = lambda: MNIST().split("train")  # noqa: E731
    images_file.write_bytes(good[:-1])
    refusal("3935 bytes long, not 3936", load)
    images_file.write_bytes(good + b"x")
    refusal("damaged", load)
    images_file.write_bytes(b"<html>")
    refusal("3c68746d", load)
    images_file.write_bytes(good[:9])
    refusal("damaged: 9 bytes long", load)
    images_file.write_bytes(b"")
    refusal("begins with nothing", load)
    images_file.write_bytes(good)
    labels_file.write_bytes(labels[:4] + struct.pack(">I", 4) + labels[8:12])
    refusal("5 images but 4 labels", load)
    labels_file.write_bytes(labels[:-1] + b"\x0c")
    refusal("label 12", load)
    packed = raw / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:40])
    refusal("cannot be read", lambda: MNIST().split("test"))


def test_mnist_offline_says_where_it_looked(tmp_path: Path, monkeypatch):
    utils = pytest.importorskip("torchvision.datasets.utils")

    def offline(*args, **kwargs):
        print("Failed to download (trying next):")
        raise RuntimeError("Error downloading train-images\nmore")

    monkeypatch.setattr(utils, "download_url", offline)
    line = refusal("ROBUSTKIT_DATA", lambda: MNIST(root=tmp_path).split("train"))
    assert str(tmp_path / "MNIST" / "raw") in line


def test_mnist_is_fetched_when_missing(tmp_path: Path, monkeypatch):
    def fetch(remote: Remote, folder: str) -> None:
        shape = (3, 28, 28) if "idx3" in remote.name else (3,)
        write_idx(Path(folder) / remote.name, np.zeros(shape, np.uint8))

    monkeypatch.setattr(rooted_module, "_download", fetch)
    assert MNIST(root=tmp_path).found() is None
    assert len(MNIST(root=tmp_path).split("test")) == 3
    files = sorted(p.name for p in MNIST(root=tmp_path).place.iterdir())
    assert len(files) == 4
    assert all(name.endswith("-ubyte.gz") for name in files)
    assert MNIST(root=tmp_path).found() == tmp_path / "MNIST" / "raw"


@pytest.mark.skipif(not REAL, reason="ROBUSTKIT_DATA names no folder of data")
def test_real_mnist():
    train = MNIST().split("train")
    said = describe(train)
    assert (len(train), len(MNIST().split("test"))) == (60000, 10000)
    assert said["counts"] == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert said["mean"] == pytest.approx([0.1307], abs=1e-4)
    assert said["std"] == pytest.approx([0.3081], abs=1e-4)


# Folders


@pytest.fixture
def photos(tmp_path: Path, monkeypatch) -> Path:
    """Folders train and test of two classes, each image of one level that tells it."""
    monkeypatch.setenv("ROBUSTKIT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for p, part in enumerate(("train", "test")):
        for c, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                level = 100 * p + 10 * c + i
                Image.new("RGB", (4, 3), (level, 0, 255)).save(root / part / name / f"{i}.png")
    return root


def test_folder_reads_parts_classes_and_pixels(photos: Path):
    (photos / "train" / "cat" / "notes.txt").write_text("no image")
    train, test = Folder(path=photos).split("train"), Folder(path=photos).split("test")
    assert (train.shape, train.classes, train.labels.tolist()) == (
        (3, 3, 4),
        ("cat", "dog"),
        [0, 0, 0, 1, 1, 1],
    )
    x = test.take(torch.arange(6))
    assert x[:, 0, 0, 0].tolist() == [100, 101, 102, 110, 111, 112]
    assert (x[:, 1] == 0).all()
    assert (x[:, 2] == 255).all()


def test_folder_keeps_every_pixel_in_its_place(photos: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "train" / "cat" / "0.png")
    x = Folder(path=photos).split("train").take(torch.tensor([0]))[0]
    assert np.array_equal(x.numpy(), pixels.transpose(2, 0, 1))


def test_folder_is_decoded_once_until_it_changes(photos: Path, monkeypatch):
    cache = photos.parent / "cache"
    first = Folder(path=photos).split("train")
    opened = []
    monkeypatch.setattr(Image, "open", lambda *a, real=Image.open: opened.append(a) or real(*a))
    again = Folder(path=photos).split("train")
    assert torch.equal(again.take(torch.arange(6)), first.take(torch.arange(6)))
    assert opened == []
    assert isinstance(again._array, np.memmap)
    Image.new("RGB", (4, 3), (77, 7, 7)).save(photos / "train" / "cat" / "0.png")
    assert Folder(path=photos).split("train").take(torch.tensor([0]))[0, 0, 0, 0] == 77
    assert len(list(cache.iterdir())) == 2
    for kept in cache.iterdir():
        kept.write_bytes(b"gone")
    refusal("delete it", lambda: Folder(path=photos).split("train"))


def test_folder_without_parts_holds_a_fifth_out(photos: Path):
    root = photos / "train"
    for i in range(3, 10):
        for name in ("cat", "dog"):
            Image.new("L", (4, 3), i).save(root / name / f"{i}.jpg")
    train, test = Folder(path=root).split("train"), Folder(path=root).split("test")
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([8, 8], [2, 2])


def test_grey_stays_grey_and_sizes_follow(photos: Path):
    for path in photos.rglob("*.png"):
        Image.new("L", (4, 3), 9).save(path)
    assert Folder(path=photos).split("train").shape == (1, 3, 4)
    other = photos / "train" / "dog" / "1.png"
    Image.new("L", (5, 3), 9).save(other)
    refusal(str(other), lambda: Folder(path=photos).split("train"))
    assert Folder(path=photos, size=6).split("train").shape == (1, 6, 6)
    Image.new("RGB", (5, 3), (9, 9, 9)).save(other)
    assert Folder(path=photos, size=6).split("train").shape == (3, 6, 6)


def test_folder_refuses_what_it_cannot_use(photos: Path):
    load = lambda: Folder(path=photos).split("train")  # noqa: E731
    bad = photos / "train" / "dog" / "2.png"
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    assert str(bad) in refusal("not an image", load)
    noise = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    jpeg = bad.with_suffix(".jpg")
    bad.unlink()
    Image.fromarray(noise).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-40])
    refusal(str(jpeg), load)
    assert not list((photos.parent / "cache").glob("*"))
    jpeg.unlink()
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(bad)
    refusal("8 bits", load)
    bad.write_bytes(good)
    (photos / "test" / "cow").mkdir()
    refusal("'cow'", load)
    (photos / "train" / "cow").mkdir()
    refusal("no images", load)
    refusal("did you mean 'photos'", lambda: Folder(path=photos.parent / "photo").split("train"))
    refusal("but no 'test'", lambda: Folder(path=_only_train(photos)).split("train"))
    refusal("no class folders", lambda: Folder(path=photos / "test" / "cow").split("train"))


def test_images_alone_have_no_label(photos: Path, save):
    own = photos.parent / "own"
    own.mkdir()
    for i, file in enumerate(sorted((photos / "train").glob("*/*"))):
        file.rename(own / f"{i}{file.suffix}")
    n = i + 1
    parts = [Folder(path=own).split(part) for part in ("train", "test")]
    assert [len(images) for images in parts] == [n - round(n / 5), round(n / 5)]
    x = np.zeros((20, 4, 4), np.uint8)
    parts += [save(x=x)(), save("test", x=x)(), save(image=x)()]
    parts += [save(x_train=x, x_test=x)()]
    for images in parts:
        assert images.classes == () and images.labels.tolist() == [-1] * len(images)
    refusal("no array 'y_train'", save(x_train=x, x_test=x, y_test=np.zeros(20, int)))


def _only_train(photos: Path) -> Path:
    (photos.parent / "half" / "train").mkdir(parents=True)
    return photos.parent / "half"


# Arrays


@pytest.fixture
def save(tmp_path: Path):
    """Write arrays to a file and give a function that loads a part of it."""

    def write(part: str = "train", **arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return lambda: Npz(path=tmp_path / "own.npz").split(part)

    return write


def test_npz_layouts_all_give_the_same_images(save):
    x = np.random.default_rng(0).integers(0, 256, (10, 3, 5, 6), dtype=np.uint8)
    parts = {"y_train": np.arange(10) % 2, "x_test": x[:2], "y_test": np.array([0, 3])}
    for written in (x, x.transpose(0, 2, 3, 1), x / 255, (x / 255).astype(np.float32)):
        train = save(x_train=written, **parts)()
        assert np.array_equal(train.take(torch.arange(10)).numpy(), x)
    assert train.classes == ("0", "1", "2", "3")
    grey = save(x_train=x[:, 0], **parts)()
    assert grey.shape == (1, 5, 6)


def test_npz_rounds_floats_to_the_nearest_level(save):
    x = np.array([0.0, 0.0019, 0.0021, 0.999, 1.0]).reshape(1, 1, 5).repeat(10, 0)
    train = save(x=x, y=np.arange(10) % 2)()
    assert train.take(torch.tensor([0])).flatten().tolist() == [0, 0, 1, 255, 255]


def test_npz_in_one_piece_holds_a_fifth_out(save):
    x, y = np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2
    x[:, 0, 0] = np.arange(20)
    train = save(x=x, y=y, classes=np.array(["even", "odd"]))()
    test = save("test", x=x, y=y, classes=np.array(["even", "odd"]))()
    assert train.classes == ("even", "odd")
    assert test.labels.bincount().tolist() == [2, 2]
    seen = [p.take(torch.arange(len(p)))[:, 0, 0, 0].tolist() for p in (train, test)]
    assert sorted(seen[0] + seen[1]) == list(range(20))


def test_npz_refuses_what_it_cannot_use(save, tmp_path: Path):
    x, y = np.zeros((10, 4, 4), np.uint8), np.arange(10) % 2
    refusal("from -0.5 to 0, outside [0, 1]", save(x=x - 0.5 * (np.arange(4) == 1), y=y))
    refusal("to 255", save(x=x + 255.0, y=y))
    refusal("nan", save(x=np.where(np.arange(4) == 2, np.nan, x), y=y))
    refusal("int64", save(x=x.astype(np.int64), y=y))
    refusal("neither dimension", save(x=np.zeros((10, 5, 8, 8), np.uint8), y=y))
    refusal("has shape", save(x=np.zeros((10, 16), np.uint8), y=y))
    refusal("10 images but 9 labels", save(x=x, y=y[:9]))
    refusal("label 1 lies outside", save(x=x, y=y, classes=np.array(["only"])))
    refusal("label -3", save(x=x, y=y - 3))
    refusal("integer", save(x=x, y=y / 2))
    refusal("no known label", save(x=x, y=y * 0 - 1))
    refusal("no array 'y'", save(x=x, labels=y))
    refusal("no array 'x'", save(images=x, y=y))
    load = save(x=x, y=np.array([object()] * 10))
    refusal("not a readable .npz", load)
    save(x=x, y=y)
    whole = (tmp_path / "own.npz").read_bytes()
    for damaged in (whole[:200], whole[:-30], b"<html>", b"", whole[:90] + b"x" + whole[91:]):
        (tmp_path / "own.npz").write_bytes(damaged)
        refusal("not a readable .npz", load)
    np.save(tmp_path / "own.npy", x)
    refusal("not a readable .npz", lambda: Npz(path=tmp_path / "own.npy").split("train"))
    refusal("did you mean 'own.np", lambda: Npz(path=tmp_path / "oen.npz").split("train"))


# Start-up


def test_importing_the_data_layer_stays_light():
    heavy = ("torchvision", "sklearn", "scipy", "datasets", "PIL", "rich")
    code = (
        "import sys, pkgutil, importlib, robustkit.data; "
        "[importlib.import_module(f'robustkit.data.{m.name}') "
        "for m in pkgutil.iter_modules(robustkit.data.__path__)]; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="ROBUSTKIT_DATA names no folder of data")
def test_real_cifar10_of_jpeg_files(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ROBUSTKIT_CACHE", str(tmp_path / "cache"))
    with tarfile.open(Path(REAL or "") / "cifar10-jpg.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    train, test = (Folder(path=tmp_path / "cifar10-jpg").split(p) for p in ("train", "test"))
    said = describe(train)
    assert (train.shape, len(train), len(test)) == ((3, 32, 32), 50000, 10000)
    assert said["counts"] == [5000] * 10
    assert said["mean"] == pytest.approx([0.491, 0.482, 0.447], abs=2e-3)
