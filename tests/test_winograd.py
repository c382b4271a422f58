"""Winograd's convolutions are convolutions, where they are taken, and leave no trace."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input
from torch.nn.utils.parametrizations import weight_norm

from robustkit.engine import winograd
from robustkit.engine.victim import frozen
from robustkit.engine.winograd import convolve, quick_passes, transformed, with_winograd

ROUNDING = 3e-5


def off(found: Tensor, right: Tensor) -> float:
    """Give the largest difference, as a share of the largest value."""
    return float((found - right).abs().max() / right.abs().max())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(160, 160, 3, padding=1),
        nn.BatchNorm2d(160),
        nn.SiLU(),  # at a kink, as of a ReLU, rounding would pick the side
        nn.Conv2d(160, 192, 3, padding=1, bias=False),
    )


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    result = model(x)
    return result.detach(), torch.autograd.grad(result.square().sum(), x)[0]


@given(
    n=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 70)),
    size=st.tuples(st.integers(1, 13), st.sampled_from([4, 7, 16])),
)
@settings(max_examples=30, deadline=None)
def test_a_transformed_kernel_convolves(
    n: int, channels: tuple[int, int], size: tuple[int, int]
) -> None:
    x, weight = torch.randn(n, channels[0], *size), torch.randn(*channels[::-1], 3, 3)
    there, back = transformed(weight)
    right = F.conv2d(x.double(), weight.double(), padding=1)
    assert off(convolve(x, there), right) < ROUNDING
    slope = conv2d_input(x.shape, weight.double(), right, padding=1)
    assert off(convolve(right.float(), back), slope) < ROUNDING


def test_an_impulse_gives_the_kernel_turned_round() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 3, 4] = 1
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    found = convolve(x, transformed(weight)[0])
    torch.testing.assert_close(found[0, 0, 2:5, 3:6], weight[0, 0].flip(0, 1), atol=1e-4, rtol=0)
    assert abs(float(found.sum()) - 45) < 1e-3


@pytest.mark.parametrize(("training", "side"), [(False, 8), (True, 8), (False, 7)])
def test_a_frozen_model_passes_alike(training: bool, side: int) -> None:
    model, x = network(), torch.randn(16, 160, side, side)
    with frozen(model, training=training):
        right = gradient(model, x)
        with quick_passes(model):
            found = gradient(model, x)
    for ours, theirs in zip(found, right, strict=True):
        assert off(ours, theirs) < 1e-4
        assert not torch.equal(ours, theirs)


def unusual() -> dict[str, tuple[nn.Module, Tensor]]:
    """Name convolutions that must stay torch's own, each with images for it."""
    x = torch.randn(8, 160, 16, 16)
    return {
        "stride": (nn.Conv2d(160, 160, 3, 2, 1), x),
        "no padding": (nn.Conv2d(160, 160, 3), x),
        "padding by name": (nn.Conv2d(160, 160, 3, padding="same"), x),
        "dilation": (nn.Conv2d(160, 160, 3, 1, 2, 2), x),
        "groups": (nn.Conv2d(320, 320, 3, 1, 1, groups=2), torch.randn(8, 320, 16, 16)),
        "kernel": (nn.Conv2d(160, 160, 5, 1, 1), x),
        "few channels": (nn.Conv2d(64, 160, 3, 1, 1), x[:, :64]),
        "mostly empty tiles": (nn.Conv2d(160, 160, 3, 1, 1), x[:, :, :5]),
        "few tiles": (nn.Conv2d(160, 160, 3, 1, 1), x[:, :, :4, :4]),
        "one image, unbatched": (nn.Conv2d(160, 160, 3, 1, 1), x[0]),
        "weights made anew": (weight_norm(nn.Conv2d(160, 160, 3, 1, 1)), x),
        "float64": (nn.Conv2d(160, 160, 3, 1, 1).double(), x.double()),
    }


@pytest.mark.parametrize("name", unusual())
def test_other_convolutions_are_left_alone(name: str) -> None:
    model, x = unusual()[name]
    with frozen(model):
        right = gradient(model, x)
        with quick_passes(model):
            found = gradient(model, x)
    assert all(map(torch.equal, found, right))


def test_weights_that_are_not_frozen_get_their_gradients() -> None:
    model, x = network(), torch.randn(16, 160, 8, 8)
    model(x).sum().backward()
    right = [p.grad for p in model.parameters()]
    model.zero_grad()
    with quick_passes(model):
        model(x).sum().backward()
    for parameter, gradient_before in zip(model.parameters(), right, strict=True):
        assert gradient_before is not None and parameter.grad is not None
        assert torch.equal(parameter.grad, gradient_before)


def test_a_kernel_is_transformed_once_and_anew_when_its_weights_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Tensor] = []

    def counted(weight: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(weight)
        return transformed(weight)

    monkeypatch.setattr(winograd, "transformed", counted)
    conv, x = nn.Conv2d(160, 160, 3, padding=1, bias=False), torch.randn(4, 160, 16, 16)
    with frozen(conv), quick_passes(conv):
        before = conv(x)
        assert torch.equal(conv(x), before)
        assert len(calls) == 1
        with torch.no_grad():
            conv.weight.mul_(2)
        torch.testing.assert_close(conv(x), 2 * before)
    assert len(calls) == 2


def test_a_convolution_in_its_place_gives_the_same_and_is_asked_where_it_gains() -> None:
    for bias, n in itertools.product((True, False), (1, 16)):
        model = nn.Sequential(nn.Conv2d(160, 160, 3, padding=1, bias=bias)).requires_grad_(False)
        x = torch.randn(n, 160, 8, 8)
        right = gradient(model, x)
        assert with_winograd(model)
        found = gradient(model, x)
        for ours, theirs in zip(found, right, strict=True):
            assert off(ours, theirs) < 1e-4
            assert torch.equal(ours, theirs) == (n == 1)


@pytest.mark.parametrize("name", unusual())
def test_no_other_convolution_is_replaced(name: str) -> None:
    conv, x = unusual()[name]
    model = nn.Sequential(conv).requires_grad_(False)
    right = gradient(model, x)
    with_winograd(model)
    assert all(map(torch.equal, gradient(model, x), right))


def test_lower_precision_and_compiled_models_are_left_alone() -> None:
    model, x = network(), torch.randn(16, 160, 8, 8)
    with frozen(model), torch.autocast("cpu", torch.bfloat16):
        right = model(x)
        with quick_passes(model):
            assert torch.equal(model(x), right)
    model.compile(backend="eager")
    with frozen(model):
        right = model(x)
        with quick_passes(model):
            assert torch.equal(model(x), right)


def test_the_gradient_has_a_gradient() -> None:
    conv: Any = nn.Conv2d(160, 160, 3, padding=1, bias=False)
    x = torch.randn(4, 160, 16, 16, requires_grad=True)
    with frozen(conv):
        first = torch.autograd.grad(conv(x).pow(3).sum(), x, create_graph=True)[0]
        right = torch.autograd.grad(first.sum(), x)[0]
        with quick_passes(conv):
            first = torch.autograd.grad(conv(x).pow(3).sum(), x, create_graph=True)[0]
            found = torch.autograd.grad(first.sum(), x)[0]
    assert off(found, right) < 1e-4


def test_gradients_that_are_mapped_over_are_those_one_by_one() -> None:
    conv: Any = nn.Conv2d(160, 160, 3, padding=1, bias=False)
    x = torch.randn(4, 160, 16, 16, requires_grad=True)
    along = torch.randn(3, 4, 160, 16, 16)
    with frozen(conv), quick_passes(conv):
        result = conv(x)

        def pull(v: Tensor) -> Tensor:
            return torch.autograd.grad(result, x, v, retain_graph=True)[0]

        mapped = torch.func.vmap(pull)(along)
        assert off(mapped, torch.stack([pull(v) for v in along])) < 1e-6
