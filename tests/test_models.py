"""Architectures: known layers, every image size, halves that make the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustkit.catalog import build
from robustkit.errors import BadValueError, UnknownNameError
from robustkit.models import Normalise
from robustkit.models.cnn import CNN
from robustkit.models.lenet import LeNet5
from robustkit.models.mlp import MLP
from robustkit.models.resnet import ResNet18

SMALL = (CNN(width=0.25), LeNet5(), MLP(hidden=(20, 10)), ResNet18(width=4))
SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 7, 13), (1, 1, 1), (3, 3, 40)]


def made(architecture, shape, classes=5) -> nn.Module:
    torch.manual_seed(0)
    stats = [0.1 * (c + 1) for c in range(shape[0])]
    return architecture.build(shape, classes, stats, stats).eval()


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.name)
def test_any_image_gives_logits_by_its_two_halves(architecture, shape):
    model, x = made(architecture, shape), torch.rand(3, *shape)
    logits = model(x)
    features = model.features(x)
    assert logits.shape == (3, 5)
    assert features.ndim == 2
    assert torch.equal(model.head(features), logits)
    logits.sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    assert model.train()(x).shape == (3, 5)


@given(
    which=st.integers(0, 3),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=40, deadline=None)
def test_no_image_size_collapses(which, shape):
    assert made(SMALL[which], shape)(torch.rand(2, *shape)).isfinite().all()


@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.name)
def test_dump_builds_the_same_architecture(architecture):
    again = build("model", architecture.dump())
    assert again == architecture
    a, b = (made(x, (1, 9, 9)).state_dict() for x in (architecture, again))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_normalise_by_hand():
    layer = Normalise([0.5, 0.25], [0.5, 0.0])
    x = torch.tensor([1.0, 0.75]).view(1, 2, 1, 1)
    assert layer(x).flatten().tolist() == [1.0, 0.5]
    assert set(layer.state_dict()) == {"mean", "std"}


@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.name)
def test_normalisation_is_inside(architecture):
    """The same weights under other statistics see the image moved and scaled."""
    torch.manual_seed(0)
    plain = architecture.build((1, 8, 8), 3, [0.0], [1.0]).eval()
    torch.manual_seed(0)
    inside = architecture.build((1, 8, 8), 3, [0.3], [0.2]).eval()
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(inside(x), plain((x - 0.3) / 0.2), atol=1e-5)
    assert not torch.allclose(inside(x), plain(x), atol=1e-3)


def test_cnn_is_the_keras_example_with_normed_logits():
    model = made(CNN(), (3, 32, 32), 10)
    assert weights(made(CNN(logit_norm=False), (3, 32, 32), 10)) == 1_250_858  # as Keras counts it
    assert weights(model) == 1_250_858 + 20
    logits = model(torch.rand(6, 3, 32, 32))
    assert torch.allclose(logits.mean(1), torch.zeros(6), atol=1e-5)
    assert torch.allclose(logits.var(1, unbiased=False), torch.ones(6), atol=2e-2)
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.25, 0.25, 0.5]


def test_cnn_skips_a_pooling_where_nothing_would_be_left():
    pools = [
        sum(isinstance(m, nn.MaxPool2d) for m in made(CNN(), (1, side, side)).modules())
        for side in (2, 8, 16)
    ]
    assert pools == [0, 1, 2]


def test_lenet_is_the_classic_on_mnist():
    assert weights(made(LeNet5(), (1, 28, 28), 10)) == 61_706


def test_mlp_is_huangs():
    assert weights(made(MLP(), (1, 28, 28), 10)) == 784_000 + 1_000 + 1_001_000 + 10_010


def test_an_mlp_without_hidden_layers_is_linear():
    model = made(MLP(hidden=()), (1, 3, 3))
    x, y = torch.rand(2, 4, 1, 3, 3)
    middle = model((x + y) / 2)
    assert torch.allclose(middle, (model(x) + model(y)) / 2, atol=1e-6)


def test_resnet_is_the_one_of_cifar():
    model = made(ResNet18(), (3, 32, 32), 10)
    assert weights(model) == 11_173_962
    seen = []
    for layer in model.features:
        layer.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape[1:])))
    model(torch.rand(1, 3, 32, 32))
    assert seen[-3:] == [(512, 4, 4), (512, 1, 1), (512,)]


def test_dropout_is_active_in_training_only():
    model, x = made(CNN(width=0.25), (1, 8, 8)), torch.rand(5, 1, 8, 8)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("table", "error", "what"),
    [
        ({"name": "cnn", "dropout": 0.5}, BadValueError, "dropout"),
        ({"name": "cnn", "width": 0}, BadValueError, "width"),
        ({"name": "mlp", "hidden": [10, 0]}, BadValueError, "hidden"),
        ({"name": "resnet18", "widht": 8}, UnknownNameError, "did you mean 'width'"),
        ({"name": "resnet"}, UnknownNameError, "did you mean 'resnet18'"),
    ],
)
def test_bad_options_are_refused(table, error, what):
    with pytest.raises(error, match=what) as caught:
        build("model", table)
    assert "\n" not in str(caught.value)
