"""The rewriting of a model for cheaper passes: the same function, or the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustkit.catalog import build
from robustkit.engine.quick import Quick, _asked, quickened
from robustkit.engine.victim import frozen
from robustkit.engine.winograd import Frozen

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def images(shape: tuple[int, int, int], n: int = 64) -> Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(1))


def trained(architecture: dict[str, Any], shape: tuple[int, int, int]) -> nn.Module:
    """A module whose batch norms have seen something, in eval mode and frozen."""
    torch.manual_seed(0)
    model = build("model", architecture).build(shape, 10, [0.4] * shape[0], [0.3] * shape[0])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval().requires_grad_(False)


ARCHITECTURES = [
    ({"name": "lenet5"}, GREY),
    ({"name": "cnn"}, COLOUR),
    ({"name": "mlp"}, GREY),
    ({"name": "resnet18", "width": 4}, COLOUR),
    ({"name": "preactresnet18", "width": 4}, COLOUR),
    ({"name": "wideresnet", "depth": 10, "width": 1}, COLOUR),
    ({"name": "wideresnet", "depth": 10, "width": 5}, COLOUR),
]


@pytest.mark.parametrize(("architecture", "shape"), ARCHITECTURES, ids=lambda a: str(a))
def test_the_networks_that_come_with_robustkit_are_rewritten(architecture, shape):
    """And give the same logits and gradients, to the same bits in batches of any size from 8 on."""
    model, x = trained(architecture, shape), images(shape)
    quick = quickened(model, x)
    assert isinstance(quick, Quick)
    (logits, gradient), (again, other) = _asked(model, x), _asked(quick, x)
    assert torch.allclose(logits, again, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    apart = (gradient - other).flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
    assert (apart < 1e-3).float().mean() >= 0.9  # at kinks of ReLU rounding picks the side
    with torch.no_grad():
        whole = quick(x)
        assert torch.allclose(logits, whole, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
        for size in (8, 21, 40):
            assert torch.equal(quick(x[:size]), whole[:size])
            assert torch.equal(_asked(quick, x[:size])[1], other[:size])


def test_the_model_is_left_as_it_was():
    model, x = trained({"name": "resnet18", "width": 4}, COLOUR), images(COLOUR)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quickened(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(value.is_contiguous(memory_format=torch.channels_last) and value.dim() == 4
                   and not value.is_contiguous() for value in model.state_dict().values())  # fmt: skip


def test_pooling_comes_before_relu_written_as_functions():
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4 * 13 * 13, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))

    torch.manual_seed(0)
    quick = quickened(Written().eval().requires_grad_(False), images(GREY))
    assert isinstance(quick, Quick)
    names = [node.name for node in quick.both.graph.nodes]
    assert names.index("max_pool2d") < names.index("relu")


def test_wide_convolutions_become_winograds_and_narrow_ones_a_program():
    for channels, wide in ((160, True), (16, False)):
        torch.manual_seed(0)
        convolutions = (nn.Conv2d(c, channels, 3, padding=1) for c in (3, channels))
        model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * channels, 10))
        quick = quickened(model.eval().requires_grad_(False), images((3, 8, 8)))
        assert isinstance(quick, Quick)
        assert any(isinstance(module, Frozen) for module in quick.both.modules()) == wide
        assert isinstance(quick.ahead, torch.jit.ScriptModule) != wide


class Plain(nn.Module):
    """A linear model, to be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > 0.5 else x + 1)


class Untracked(Plain):
    """A graph loses that part of it is out of the gradient's sight."""

    share = 2.0

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = x * self.share
        return super().forward(x + hidden)


class Constant(Plain):
    """A graph keeps what was drawn when it was made."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(10)


class Sized(Plain):
    """A program that is traced keeps the number of images as it was."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(len(x.shape) + x.shape[0])


def test_a_plain_linear_model_is_rewritten():
    assert isinstance(quickened(Plain().eval().requires_grad_(False), images(GREY)), Quick)


@pytest.mark.parametrize("kind", [Branching, Untracked, Constant, Sized])
def test_what_a_graph_would_get_wrong_stays_as_it_is(kind: type[nn.Module]):
    torch.manual_seed(0)
    model = kind().eval().requires_grad_(False)
    assert quickened(model, images(GREY)) is model


@pytest.mark.parametrize(("share", "rewritten"), [(0.02, True), (0.1, False)])
def test_gradients_may_differ_as_far_as_rounding_takes_them_in_deep_networks(share, rewritten):
    model = Untracked().eval().requires_grad_(False)
    model.share = share
    assert (quickened(model, images(GREY)) is not model) == rewritten


def test_models_with_hooks_or_in_training_mode_stay_as_they_are():
    model = Plain().eval().requires_grad_(False)
    with frozen(model, training=True):
        assert quickened(model, images(GREY)) is model
    model.linear.register_forward_hook(lambda module, inputs, output: output * 2)
    assert quickened(model, images(GREY)) is model
