"""Few labels: which points keep theirs, and who trains on the others."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustkit.data.batches import DeviceImages, SharedBatches
from robustkit.data.images import ArrayImages, Subset
from robustkit.engine.points import Points, divide
from robustkit.engine.synthesise import labelled_share
from robustkit.errors import BadValueError
from robustkit.interfaces import Dataset, Images
from robustkit.recipe import Fit

KNOWN, UNKNOWN, CLASSES = 90, 25, 3


class Partly(Dataset):
    """Images that are their own numbers; the last ones have no label."""

    name = "partly"

    def split(self, part: Literal["train", "test"]) -> Images:
        n = KNOWN + UNKNOWN
        pixels = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(4, 2).repeat(4, 3)
        labels = np.where(np.arange(n) < KNOWN, np.arange(n) % CLASSES, -1)
        return ArrayImages(pixels, labels, ("a", "b", "c"))


def numbers(points: Points, *, labelled: bool) -> set[int]:
    part = points.train
    ids = ((part.labels >= 0) == labelled).nonzero().squeeze(1)
    return set(part.take(ids)[:, 0, 0, 0].tolist())


@settings(max_examples=40, deadline=None)
@given(
    limit=st.sampled_from([None, 30, 45]), labels=st.sampled_from([None, 3, 12, 27]),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_the_same_points_keep_their_label_for_trainers_and_generators(
    limit: int | None, labels: int | None, seed: int
) -> None:
    fit = Fit(heldout=15, limit=limit, labels=labels)
    trainers = divide(Partly(), fit, seed)
    generators = divide(Partly(), fit, seed, unlabelled=True)
    chosen = numbers(trainers, labelled=True)
    assert chosen == numbers(generators, labelled=True)
    assert not numbers(trainers, labelled=False)
    assert trainers.counts.tolist() == generators.counts.tolist()
    if labels is not None:
        assert trainers.counts.tolist() == [labels // CLASSES] * CLASSES
    everything = 75 if limit is None else limit
    assert len(trainers.train) == (labels or everything)
    assert len(generators.train) == everything + (UNKNOWN if limit is None else 0)
    for part in (trainers.train, trainers.heldout, generators.heldout):
        values = part.take(torch.arange(len(part)))[:, 0, 0, 0]
        assert (values % CLASSES == part.labels).all()
    held = set(trainers.heldout.take(torch.arange(15))[:, 0, 0, 0].tolist())
    assert not held & (chosen | numbers(generators, labelled=False))


def test_another_seed_chooses_others_and_more_labels_take_fewer_in() -> None:
    first, other = (
        numbers(divide(Partly(), Fit(heldout=15, labels=9), seed), labelled=True) for seed in (0, 1)
    )
    assert first != other
    more = numbers(divide(Partly(), Fit(heldout=15, labels=30), 0), labelled=True)
    assert first < more


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (10, "fit.labels 10 is not as many of each of 3 classes; give 9 or 12"),
        (2, "fit.labels 2 is not as many of each of 3 classes; give 3"),
        (90, "fit.labels 90 is 30 of each class, but of 'a' only 25 points are trained on"),
    ],
)
def test_labels_that_cannot_be_shared_out_are_refused(labels: int, message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        divide(Partly(), Fit(heldout=15, labels=labels), 0)


# Labelled points at a share of each batch


@settings(max_examples=30, deadline=None)
@given(labels=st.sampled_from([3, 12, 27]), size=st.integers(4, 30), share=st.floats(0.1, 0.9))
def test_labelled_points_hold_their_share_of_each_batch(
    labels: int, size: int, share: float
) -> None:
    train = divide(Partly(), Fit(heldout=15, labels=labels), 0, unlabelled=True).train
    known = labelled_share(train, share)
    assert known is not None
    if round(share * size) in (0, size):
        with pytest.raises(BadValueError, match="fit.labelled_share .* each batch needs"):
            SharedBatches(DeviceImages(train), known, size, 0)
        return
    batches = SharedBatches(DeviceImages(train), known, size, 0)
    drawn: list[int] = []
    for epoch in range(3):
        unknown = list[int]()
        for batch in batches.epoch(epoch):
            assert batch.y.equal(train.labels[batch.ids]) and not batch.source.any()
            here = batch.y >= 0
            others = int((~here).sum())
            wanted = max(1, round(others * share / (1 - share)))
            assert int(here.sum()) == min(round(share * size), wanted) and len(batch) <= size
            unknown += batch.ids[~here].tolist()
            drawn += batch.ids[here].tolist()
        assert sorted(unknown) == (train.labels < 0).nonzero().squeeze(1).tolist()
    for turn in range(0, len(drawn), labels):
        once = drawn[turn : turn + labels]
        assert len(set(once)) == len(once), "a label comes again before all have come"


def test_without_both_kinds_there_is_no_share_to_hold() -> None:
    everything = divide(Partly(), Fit(heldout=15, limit=30), 0).train
    assert labelled_share(everything, 0.5) is None
    train = divide(Partly(), Fit(heldout=15, labels=3), 0, unlabelled=True).train
    assert labelled_share(train, None) is None
    none = Subset(train, torch.arange(9), torch.full((9,), -1))
    assert labelled_share(none, 0.5) is None
