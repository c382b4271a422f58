"""The gradient of a convolution of one channel, block by block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from robustkit.engine.grey import Grey, is_grey, with_grey


@given(
    k=st.integers(1, 7),
    channels=st.integers(1, 20),
    size=st.tuples(st.integers(8, 17), st.integers(8, 17)),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_it_convolves_and_its_gradient_is_that_of_the_convolution(k, channels, size, data):
    """Also where blocks do not fill the image; weights and images of whole numbers are exact."""
    conv = nn.Conv2d(1, channels, k, padding=data.draw(st.integers(0, k - 1)))
    with torch.no_grad():
        for tensor in conv.parameters():
            tensor.copy_(torch.randint(-5, 6, tensor.shape))
    conv.requires_grad_(False)
    assert is_grey(conv)
    x = torch.randint(-5, 6, (3, 1, *size)).float().requires_grad_()
    (right, found), slopes = (conv(x), Grey(conv)(x)), []
    weights = torch.randint(-5, 6, right.shape).float()
    assert torch.equal(right, found)
    for result in (right, found):
        slopes += torch.autograd.grad((result * weights).sum(), x)
    assert torch.equal(*slopes)


def test_several_gradients_at_once():
    """As an attack asks for the slopes of all logits."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 6, 5, padding=2).requires_grad_(False)
    x, many = torch.rand(2, 1, 8, 8).requires_grad_(), torch.rand(4, 2, 6, 8, 8)
    slopes = [
        torch.autograd.grad(f(x), x, many, is_grads_batched=True)[0] for f in (conv, Grey(conv))
    ]
    assert torch.allclose(*slopes, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(1, 8, 3, stride=2),
        nn.Conv2d(1, 8, 3, dilation=2),
        nn.Conv2d(1, 8, (3, 5)),
        nn.Conv2d(1, 8, 3, padding="same"),
        nn.Conv2d(1, 8, 3, padding=(0, 1)),
        nn.Conv2d(1, 8, 3, padding=3),
        nn.Conv2d(1, 8, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(1, 8, 3),
    ],
    ids=str,
)
def test_other_convolutions_are_not_grey(other):
    assert not is_grey(other)


def test_it_stands_in_the_place_of_convolutions_at_any_depth():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.body = nn.Sequential(nn.Conv2d(4, 1, 3), nn.Sequential(nn.Conv2d(1, 2, 3)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(F.relu(self.first(x)))

    torch.manual_seed(0)
    net, x = Net().requires_grad_(False), torch.rand(2, 1, 12, 12)
    before = net(x)
    grey = with_grey(net)
    assert isinstance(grey.first, Grey) and isinstance(grey.body[1][0], Grey)
    assert torch.equal(grey(x), before)
