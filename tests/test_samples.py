"""The file of generated images: written in blocks, mapped, and those of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustkit import samples
from robustkit.errors import BadValueError
from robustkit.files import map_arrays, read_arrays
from robustkit.records import Provenance
from robustkit.samples import SampleRecord, Samples, Sieve

PROVENANCE = Provenance(versions={}, device="cpu", started="2026-01-01T00:00:00Z", seconds=1.0)
RECORD = SampleRecord(
    generator={"name": "dcgan"},
    data={"name": "digits"},
    seed=3,
    sieves=(Sieve(name="confidence", options={"share": 0.5}, before=10, after=5),),
    provenance=PROVENANCE,
)


def some(n: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), block=st.integers(1, 16), side=st.sampled_from([4, 8]))
def test_what_is_written_block_by_block_reads_back(tmp_path_factory, n: int, block: int, side: int):
    path = tmp_path_factory.mktemp("samples") / "s.npz"
    pixels, labels = some(n, (3, side, side)), np.arange(n) % 4 - 1
    confidence = np.linspace(0, 1, n)
    blocks = (pixels[i : i + block] for i in range(0, n, block))
    samples.write(path, blocks, labels, ["a", "b", "c"], RECORD, confidence)
    again = Samples.read(path)
    assert np.array_equal(again.images.take(torch.arange(n)).numpy(), pixels)
    assert again.images.labels.tolist() == labels.tolist()
    assert again.images.classes == ("a", "b", "c")
    assert np.allclose(again.confidence, confidence) and again.record == RECORD
    assert np.array_equal(read_arrays(path)["x"], pixels)  # as numpy reads it


def test_large_arrays_are_mapped_and_give_the_same_digest_as_in_memory(tmp_path: Path):
    pixels, labels = some(1500, (3, 32, 32)), np.zeros(1500, np.int64)
    samples.write(tmp_path / "a.npz", [pixels], labels, ["a"], RECORD)
    np.savez_compressed(tmp_path / "b.npz", x=pixels.transpose(0, 2, 3, 1), y=labels)
    assert isinstance(map_arrays(tmp_path / "a.npz")["x"], np.memmap)
    assert not isinstance(map_arrays(tmp_path / "b.npz")["x"], np.memmap)
    mapped, read = Samples.read(tmp_path / "a.npz"), Samples.read(tmp_path / "b.npz")
    assert mapped.digest == read.digest
    pixels[-1, -1, -1, -1] ^= 1
    samples.write(tmp_path / "c.npz", [pixels], labels, ["a"], RECORD)
    assert Samples.read(tmp_path / "c.npz").digest != mapped.digest


def test_images_last_in_channels_are_mapped_too(tmp_path: Path):
    """The layout of the published sets: `image` (N, H, W, C) and `label`."""
    pixels, labels = some(1500, (32, 32, 3)), np.arange(1500) % 10
    np.savez(tmp_path / "1m.npz", image=pixels, label=labels)
    found = Samples.read(tmp_path / "1m.npz", classes=tuple("abcdefghij")).images
    ids = torch.tensor([7, 1499, 0])
    assert np.array_equal(found.take(ids).permute(0, 2, 3, 1).numpy(), pixels[ids])
    assert found.classes == tuple("abcdefghij") and found.labels[7] == 7


def test_images_without_labels_are_of_unknown_class(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x=some(5))
    found = Samples.read(tmp_path / "x.npz", classes=("a", "b"))
    assert found.images.labels.tolist() == [-1] * 5
    assert Samples.read(tmp_path / "x.npz").images.classes == ()
    np.savez(tmp_path / "x.npz", x=some(5), labels=np.zeros(5, int))
    with pytest.raises(BadValueError, match="holds no array 'y'"):
        Samples.read(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": some(5), "y": np.zeros(4, np.int64)}, "5 images but 4 labels"),
        ({"x": some(5).astype(np.int32), "y": np.zeros(5, np.int64)}, "is int32"),
        ({"x": some(5), "y": np.full(5, 9)}, "label 9 lies outside the 2 classes"),
        ({"x": some(5), "y": np.zeros(5, int), "confidence": np.full(5, 2.0)}, "confidence"),
        ({"x": some(5), "y": np.zeros(5, int), "confidence": np.full(5, np.nan)}, "confidence"),
        ({"x": some(5), "y": np.zeros(5, int), "record": np.asarray("{}")}, "is damaged"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line(tmp_path: Path, arrays, said: str):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BadValueError, match=said) as error:
        Samples.read(tmp_path / "bad.npz", classes=("a", "b"))
    assert "\n" not in str(error.value) and "bad.npz" in str(error.value)


def test_damaged_files_are_refused(tmp_path: Path):
    """Truncated anywhere, or with bytes of its headers changed: one line, never a wrong mapping."""
    path = tmp_path / "a.npz"
    samples.write(path, [some(1500, (3, 32, 32))], np.zeros(1500, np.int64), ["a"], RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadValueError, match=r"not a readable \.npz"):
        Samples.read(path)
    path.write_bytes(whole.replace(b"(1500, 3, 32, 32)", b"(1500, 3, 32, 99)", 1))
    with pytest.raises(BadValueError, match="not those of its header"):
        Samples.read(path)
    path.write_bytes(whole.replace(b"'|u1'", b"'|O1'", 1))
    with pytest.raises(BadValueError):
        Samples.read(path)
