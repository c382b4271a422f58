"""What happens to a batch before a trainer sees it: augmented, mixed, its labels softened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robustkit.catalog import build
from robustkit.data.augment import Augmentation, crop, cutout, flip, smooth
from robustkit.data.batches import Batches, DeviceImages
from robustkit.engine.presenting import Presenting
from robustkit.engine.rng import PointRng
from robustkit.interfaces import Batch, Clock
from robustkit.recipe import Fit


def rng(ids: torch.Tensor) -> PointRng:
    return PointRng(0, "augment", ids)


def test_crop_is_a_window_of_the_padded_image() -> None:
    x = torch.arange(1.0, 1 + 50 * 2 * 3 * 4).view(50, 2, 3, 4)
    cut = crop(x, 2, rng(torch.arange(50)), at=1)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    offsets = set()
    for before, after in zip(padded, cut, strict=True):
        places = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(before[:, i : i + 3, j : j + 4], after)
        ]
        assert len(places) == 1
        offsets.add(places[0])
    assert {i for i, _ in offsets} == {j for _, j in offsets} == set(range(5))
    assert len(offsets) > 15  # of 25: the two directions are drawn apart


def test_flip_mirrors_half_of_the_points() -> None:
    x = torch.rand(400, 1, 2, 3)
    turned = flip(x, rng(torch.arange(400)))
    mirrored = (turned == x.flip(3)).flatten(1).all(1)
    assert torch.equal(turned[~mirrored], x[~mirrored])
    assert 150 < mirrored.sum() < 250


def test_cutout_hides_a_square_of_half_the_side_centred_anywhere() -> None:
    x, fill = torch.rand(900, 2, 12, 16), torch.tensor([5.0, 6.0])
    cut = cutout(x, fill, rng(torch.arange(900)))
    hidden = (cut == fill.view(-1, 1, 1)).all(1)
    assert torch.equal(cut.where(~hidden.unsqueeze(1), x), x)
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.flatten(1).sum(1), rows * columns)
    # Of side 6, clipped at the edges: the first pixel as centre leaves 3 of it, the last one 4.
    assert set(rows.tolist()) == set(columns.tolist()) == {3, 4, 5, 6}
    for counts, side in ((rows, 12), (columns, 16)):
        assert (counts < 6).float().mean() == pytest.approx(5 / side, abs=0.05)
    first = hidden.any(2).int().argmax(1)[rows == 6]
    assert set(first.tolist()) == {0, 1, 2, 3, 4, 5, 6}


def test_smoothed_labels_by_hand() -> None:
    y = torch.tensor([2, 0])
    assert smooth(y, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    torch.testing.assert_close(
        smooth(y, 4, 0.2), torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]])
    )
    soft = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(smooth(soft, 4, 0.2), torch.tensor([[0.45, 0.45, 0.05, 0.05]]))


def test_augmentation_is_the_points_own_and_anew_each_epoch() -> None:
    x, ids = torch.rand(9, 1, 6, 6), torch.arange(9)
    rows = torch.tensor([7, 2])
    changes: list[Callable[..., Tensor]] = [
        lambda *a: crop(a[0], 2, *a[1:]),
        flip,
        lambda *a: cutout(a[0], torch.zeros(1), *a[1:]),
        Augmentation(("crop", "flip", "cutout"), (0.5,)),
    ]
    for change in changes:
        whole = change(x, rng(ids), 4)
        assert torch.equal(change(x[rows], rng(ids[rows]), 4), whole[rows])
        assert not torch.equal(change(x, rng(ids), 5), whole)


@pytest.fixture(scope="module")
def digits() -> DeviceImages:
    return DeviceImages(build("dataset", "digits").split("test"))


def presented(images: DeviceImages, epoch: int = 0, seed: int = 0, **fit: Any) -> list[Batch]:
    """Give an epoch as a trainer sees it."""
    options = Fit(**fit)
    present = Presenting(options, images, Augmentation(options.augment, (0.3,)), seed)
    return [present(b, epoch, i) for i, b in enumerate(Batches(images, 50, seed).epoch(epoch))]


def test_nothing_is_asked_for_and_nothing_is_done(digits: DeviceImages) -> None:
    for batch, plain in zip(presented(digits), Batches(digits, 50, 0).epoch(0), strict=True):
        assert torch.equal(batch.x, plain.x)
        assert torch.equal(batch.y, plain.y)


def test_smoothing_softens_labels_and_nothing_else(digits: DeviceImages) -> None:
    for batch, plain in zip(
        presented(digits, label_smoothing=0.1), Batches(digits, 50, 0).epoch(0), strict=True
    ):
        assert torch.equal(batch.x, plain.x)
        assert torch.equal(batch.y, smooth(plain.y, 10, 0.1))


def test_mixup_mixes_images_and_labels_by_one_share_a_step(digits: DeviceImages) -> None:
    """Each image is solved for its share and partner; the label must tell of the same ones."""
    everything = digits.take(torch.arange(len(digits))).flatten(1)
    shares = []
    for batch in presented(digits, mixup=1.0):
        own = digits.take(batch.ids).flatten(1)
        assert batch.y.shape == (len(batch), 10)
        torch.testing.assert_close(batch.y.sum(1), torch.ones(len(batch)))
        labels = digits.labels[batch.ids]
        certain = batch.y.gather(1, labels.unsqueeze(1)).squeeze(1)
        share = certain.min()  # of points whose partner is of another class
        shares.append(float(share))
        rest = (batch.x.flatten(1) - share * own) / (1 - share)
        distance, partner = (rest.unsqueeze(1) - everything).abs().amax(2).min(1)
        assert distance.max() < 1e-3
        expected = share * smooth(labels, 10) + (1 - share) * smooth(digits.labels[partner], 10)
        torch.testing.assert_close(batch.y, expected)
    assert len(set(shares)) == len(shares)


def test_shares_are_of_their_beta_distribution(digits: DeviceImages) -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1))."""
    for alpha in (0.2, 2.0):
        found = []
        for epoch in range(60):
            for batch in presented(digits, epoch, mixup=alpha):
                found.append(batch.y.gather(1, digits.labels[batch.ids].unsqueeze(1)).min())
        shares = torch.stack(found)
        assert shares.mean() == pytest.approx(0.5, abs=0.06)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_what_is_presented_is_of_seed_epoch_step_and_point(digits: DeviceImages) -> None:
    fit: dict[str, Any] = {
        "augment": ("crop", "flip", "cutout"),
        "mixup": 1.0,
        "label_smoothing": 0.1,
    }
    (whole, *_), (again, *_) = presented(digits, 3, **fit), presented(digits, 3, **fit)
    assert torch.equal(whole.x, again.x)
    assert torch.equal(whole.y, again.y)
    assert not torch.equal(whole.x, presented(digits, 3, seed=1, **fit)[0].x)
    options = Fit(**fit)
    present = Presenting(options, digits, Augmentation(options.augment, (0.3,)), 0)
    parts = [next(Batches(digits, 50, 0, rank, 2).epoch(3)) for rank in (0, 1)]
    joined = [present(part, 3, 0) for part in parts]
    torch.testing.assert_close(torch.cat([b.x for b in joined]), whole.x, rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([b.y for b in joined]), whole.y, rtol=0, atol=0)
    assert torch.equal(joined[0].ids, parts[0].ids)


@pytest.mark.parametrize("replays", [1, 3])
def test_another_view_is_mixed_alike_and_augmented_otherwise(
    digits: DeviceImages, replays: int
) -> None:
    batches = list(Batches(digits, 50, 0).epoch(2))
    steps = len(batches) * replays

    def views(*names: Any) -> tuple[Tensor, Tensor]:
        fit = Fit(augment=names, mixup=1.0)
        present = Presenting(fit, digits, Augmentation(fit.augment, (0.3,)), 0, replays)
        clock = Clock(2, 4, 2 * steps + 3 * replays + replays - 1, 4 * steps)
        first = present(batches[3], 2, 3)
        return first.x, present.again(first, clock, "other")

    first, again = views()
    assert torch.equal(first, again)
    first, again = views("cutout")
    assert not torch.equal(first, again)
    assert (first == again).float().mean() > 0.3, "the same points in the same shares"
