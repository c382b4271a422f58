from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustkit.catalog import build
from robustkit.errors import BadValueError, RobustkitError
from robustkit.losses.cross_entropy import CrossEntropy
from robustkit.losses.margin import DLR, Margin, dlr, lead, margin, targeted_dlr

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.0], [1.0, 5.0, -1.0, 2.0]])
Y = torch.tensor([0, 3])


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert CrossEntropy()(logits, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3))
    assert CrossEntropy()(logits, torch.tensor([0])).item() == pytest.approx(math.log(4))


def test_cross_entropy_takes_soft_labels_and_smoothing() -> None:
    hard = CrossEntropy()(LOGITS, Y)
    one_hot = torch.nn.functional.one_hot(Y, 4).float()
    assert torch.allclose(CrossEntropy()(LOGITS, one_hot), hard)
    smooth = 0.9 * one_hot + 0.1 / 4
    smoothed = CrossEntropy(label_smoothing=0.1)(LOGITS, Y)
    assert torch.allclose(smoothed, CrossEntropy()(LOGITS, smooth))
    assert not torch.allclose(smoothed, hard)


def test_margin_by_hand() -> None:
    assert margin(LOGITS, Y).tolist() == [-1.0, 3.0]
    assert Margin()(LOGITS, Y).tolist() == [-1.0, 3.0]


def test_dlr_by_hand() -> None:
    # -(4 - 3) / (4 - 1), and -(2 - 5) / (5 - 1)
    assert dlr(LOGITS, Y).tolist() == pytest.approx([-1 / 3, 3 / 4])
    assert DLR()(LOGITS, Y).tolist() == pytest.approx([-1 / 3, 3 / 4])


def test_targeted_dlr_by_hand() -> None:
    # -(4 - 1) / (4 - (1 + 0) / 2), and -(2 - 1) / (5 - (1 - 1) / 2)
    target = torch.tensor([1, 0])
    assert targeted_dlr(LOGITS, Y, target).tolist() == pytest.approx([-6 / 7, -1 / 5])
    assert lead(LOGITS, Y, target).tolist() == [-3.0, -1.0]


@given(st.integers(0, 2**31), st.floats(0.1, 10), st.floats(-5, 5))
def test_dlr_ignores_shift_and_scale(seed: int, scale: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(6, (5,), generator=generator)
    moved = scale * logits + shift
    assert torch.allclose(dlr(moved, y), dlr(logits, y), atol=1e-8)
    target = (y + 1) % 6
    assert torch.allclose(targeted_dlr(moved, y, target), targeted_dlr(logits, y, target))
    wrong = logits.argmax(1) != y
    assert torch.equal(margin(logits, y) > 0, wrong)
    assert torch.equal(dlr(logits, y) > 0, wrong)


def test_dlr_names_its_need_of_three_classes() -> None:
    with pytest.raises(BadValueError, match="needs 3 classes, the model has 2"):
        DLR()(LOGITS[:, :2], torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["cross-entropy", "margin", "dlr"])
def test_losses_are_in_the_catalogue(name: str) -> None:
    loss = build("loss", name)
    assert loss.name == name
    assert loss(LOGITS, Y).shape == (2,)
    assert build("loss", loss.dump()) == loss


def test_smoothing_out_of_range_is_refused() -> None:
    with pytest.raises(RobustkitError, match="label_smoothing"):
        build("loss", {"name": "cross-entropy", "label_smoothing": 1.5})
