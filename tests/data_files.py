"""Writes small instances of the files that published data sets come in."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

Array = np.ndarray
CIFAR10 = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]


def pixels(n: int, size: int = 32, seed: int = 0) -> Array:
    """Random images (n, 3, size, size)."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def write_idx(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def text(value: bytes) -> bytes:
    """A Python 2 string in a pickle."""
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<I", len(value)) + value


def python2_pickle(**table: Array | list[int]) -> bytes:
    """A table as Python 2 and its numpy pickled it, the way that CIFAR was published."""
    out = b"\x80\x02}("
    for key, value in table.items():
        out += text(key.encode())
        if isinstance(value, list):
            out += b"](" + b"".join(b"K" + bytes([v]) for v in value) + b"e"
            continue
        shape = b"".join(b"J" + struct.pack("<i", side) for side in value.shape)
        out += (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01(" + shape + b"tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(value.tobytes()) + b"tb"
        )
    return out + b"u."


def records(labels: list[Array], images: Array) -> bytes:
    """CIFAR's binary version: the labels' bytes, then the pixels, of each image."""
    rows = [np.stack(labels, 1).astype(np.uint8), images.reshape(len(images), -1)]
    return np.concatenate(rows, 1).tobytes()


def image(array: Array, kind: str) -> bytes:
    """An image (3, H, W) as a PNG or JPEG file."""
    out = io.BytesIO()
    Image.fromarray(array.transpose(1, 2, 0)).save(out, {"jpg": "jpeg"}.get(kind, kind))
    return out.getvalue()


def put(place: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, or a tar archive with that folder in it."""
    if ".t" not in place.name:
        for name, data in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    mode = {".tar": "w:", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}[place.suffix]
    with tarfile.open(place, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{place.name.split('.')[0]}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def cifar10_batches(labels: Array, images: Array, form: str) -> dict[str, bytes]:
    """Five training batches and a test batch; the test part has the first two points."""
    parts = zip(np.array_split(labels, 5), np.array_split(images, 5), strict=True)
    batches = {f"data_batch_{k}": part for k, part in enumerate(parts, 1)}
    batches["test_batch"] = (labels[:2], images[:2])
    if form == "binary":
        return {f"{name}.bin": records([y], x) for name, (y, x) in batches.items()}
    return {
        name: python2_pickle(data=x.reshape(len(x), -1), labels=y.tolist())
        for name, (y, x) in batches.items()
    }


def cifar10_images(labels: Array, images: Array, kind: str) -> dict[str, bytes]:
    """Both parts as image files by class; the points of a class are in their order."""
    return {
        f"{part}/{CIFAR10[label]}/{number:04}.{kind}": image(x, kind)
        for part in ("train", "test")
        for number, (label, x) in enumerate(zip(labels, images, strict=True))
    }


def cifar100_batches(fine: Array, coarse: Array, images: Array, form: str) -> dict[str, bytes]:
    if form == "binary":
        data = records([coarse, fine], images)
        return {"train.bin": data, "test.bin": data}
    data = python2_pickle(
        data=images.reshape(len(images), -1),
        fine_labels=fine.tolist(),
        coarse_labels=coarse.tolist(),
    )
    return {"train": data, "test": data}


def svhn(root: Path, labels: Array, images: Array) -> None:
    """SVHN's files of images (N, 3, 32, 32); labels are 1..10, 10 for the digit 0."""
    (root / "SVHN").mkdir(parents=True, exist_ok=True)
    arrays = {"X": images.transpose(2, 3, 1, 0), "y": labels.reshape(-1, 1).astype(np.uint8)}
    for part in ("train", "test"):
        savemat(root / "SVHN" / f"{part}_32x32.mat", arrays, do_compression=True)


def tiny_imagenet(root: Path) -> Path:
    """Two classes of two training images, and three images to validate on, one of them grey."""
    place = root / "tiny-imagenet-200"
    files = {
        "words.txt": b"n03\tleft, out\nn02\tgoldfish, Carassius auratus\nn01\tjay\n",
        "val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t0\t62\t62\nval_1.JPEG\tn01\t0\t0\t9\t9\n"
        b"val_2.JPEG\tn02\t1\t1\t2\t2\n",
    }
    x = [np.full((3, 64, 64), 30 * k, np.uint8) for k in range(7)]
    for k in range(4):
        wnid = f"n0{k // 2 + 1}"
        files[f"train/{wnid}/images/{wnid}_{k % 2}.JPEG"] = image(x[k], "jpg")
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
    for k in range(3):
        files[f"val/images/val_{k}.JPEG"] = image(x[4 + k], "jpg")
    put(place, files)
    Image.new("L", (64, 64), 180).save(place / "val" / "images" / "val_2.JPEG", "jpeg")
    return place
