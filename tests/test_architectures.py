"""VGG13, PreActResNet-18, wide residual networks and torchvision's: sizes and layers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robustkit.catalog import build
from robustkit.errors import BadValueError, RobustkitError
from robustkit.models.common import PreactBlock
from robustkit.models.preactresnet import PreActResNet18
from robustkit.models.torchvision import TorchVision
from robustkit.models.vgg import VGG13
from robustkit.models.wideresnet import WideResNet

SMALL = (
    VGG13(width=4),
    VGG13(width=4, batch_norm=False),
    PreActResNet18(width=4),
    WideResNet(depth=10, width=1, dropout=0.1),
    WideResNet(depth=10, width=1, activation="swish"),
)
SIZES = [(1, 8, 8), (3, 32, 32), (2, 7, 13), (1, 1, 1), (3, 3, 40), (3, 64, 64)]


def made(architecture, shape=(3, 32, 32), classes=10) -> nn.Module:
    torch.manual_seed(0)
    if isinstance(architecture, str | dict):
        architecture = build("model", architecture)
    return architecture.build(shape, classes, [0.4] * shape[0], [0.2] * shape[0])


def parameters(table) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in made(table).parameters())


def wide(depth: int, width: int) -> int:
    """Count the parameters of a wide residual network for ten classes of colour images."""
    total, before = 3 * 16 * 9, 16
    for stage in (1, 2, 4):
        now = 16 * width * stage
        for _ in range((depth - 4) // 6):
            total += 2 * before + 9 * before * now + 2 * now + 9 * now * now
            total += before * now if before != now else 0
            before = now
    return total + 2 * before + 10 * before + 10


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ("wideresnet-16-10", 17_116_634),
        ("wideresnet-28-10", 36_479_194),
        ("wideresnet-34-10", 46_160_474),
        ("wideresnet-40-10", 55_841_754),
        ({"name": "wideresnet", "depth": 16, "width": 4, "activation": "swish"}, 2_748_890),
        # As in Rice et al.'s code, whose last norm the form without one lacks: 11,171,146.
        ("preactresnet18", 11_171_146 + 2 * 512),
        # 9,402,048 weights of convolutions; biases and norms of 2,944 channels; 512 x 10 and 10.
        ("vgg13", 9_402_048 + 3 * 2_944 + 5_130),
        ({"name": "vgg13", "batch_norm": False}, 9_402_048 + 2_944 + 5_130),
        # torchvision's own numbers, with 10 classes in place of 1000.
        ("torchvision", 11_689_512 - 990 * 513),
        ({"name": "torchvision", "arch": "resnet50"}, 25_557_032 - 990 * 2049),
    ],
    ids=str,
)
def test_parameters_are_as_known(table, count):
    assert parameters(table) == count


def test_wide_networks_are_counted_by_hand():
    for depth, width in ((10, 1), (16, 10), (22, 2), (34, 10)):
        assert parameters({"name": "wideresnet", "depth": depth, "width": width}) == wide(
            depth, width
        )


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: str(a.dump()))
def test_any_image_gives_logits_by_its_two_halves(architecture, shape):
    model, x = made(architecture, shape, 5).eval(), torch.rand(3, *shape)
    logits = model(x)
    assert logits.shape == (3, 5)
    assert model.features(x).ndim == 2
    assert torch.equal(model.head(model.features(x)), logits)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("architecture", [*SMALL, TorchVision()], ids=lambda a: str(a.dump()))
def test_channels_last_changes_nothing(architecture):
    model, x = made(architecture).eval(), torch.rand(2, 3, 32, 32)
    expected = model(x)
    inside = model.to(memory_format=torch.channels_last)
    assert torch.allclose(inside(x.to(memory_format=torch.channels_last)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "sides"),
    [(VGG13(width=4), [1]), (PreActResNet18(width=4), [4]), (WideResNet(depth=10, width=1), [8])],
    ids=lambda v: str(getattr(v, "name", v)),
)
def test_a_cifar_image_shrinks_as_in_the_papers(architecture, sides):
    model, seen = made(architecture).eval(), []
    for layer in model.features:
        layer.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape)))
    model(torch.rand(1, 3, 32, 32))
    assert [shape[-1] for shape in seen if len(shape) == 4][-2] == sides[0]


def test_a_preactivation_block_by_hand():
    """With its last convolution at 0 a block is its shortcut: x itself, or a map of relu(bn(x))."""
    x = torch.randn(2, 3, 6, 6)
    same = PreactBlock(3, 3, 1).eval()
    wider = PreactBlock(3, 5, 2).eval()
    for block in (same, wider):
        nn.init.zeros_(block.rest[-1].weight)
    assert torch.equal(same(x), x)
    active = (x / math.sqrt(1 + 1e-5)).relu()
    expected = nn.functional.conv2d(active, wider.shortcut.weight, stride=2)
    assert torch.allclose(wider(x), expected, atol=1e-6)
    assert wider(x).shape == (2, 5, 3, 3)


def test_swish_is_in_place_of_every_relu():
    model = made(WideResNet(depth=16, width=1, activation="swish"))
    kinds = [type(layer) for layer in model.modules()]
    assert kinds.count(nn.SiLU) == 13
    assert nn.ReLU not in kinds


def test_dropout_is_between_the_convolutions_of_each_block():
    blocks = [m for m in made(WideResNet(depth=16, width=1, dropout=0.3)).modules()
              if isinstance(m, PreactBlock)]  # fmt: skip
    assert len(blocks) == 6
    for block in blocks:
        kinds = [type(layer) for layer in block.rest]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
        assert block.rest[3].p == 0.3


@pytest.mark.parametrize("table", ["vgg13", {"name": "wideresnet", "depth": 10, "width": 4}])
def test_convolutions_start_by_fan_out(table):
    model = made(table)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            few = 3 / math.sqrt(2 * layer.weight.numel())
            spread = layer.weight.std().item() / math.sqrt(2 / fan_out)
            assert abs(spread - 1) < few, layer
    assert not model.head.bias.any()


def test_wide_networks_have_whole_blocks():
    with pytest.raises(BadValueError, match=r"'depth'.*30.*6n \+ 4, such as 28"):
        build("model", {"name": "wideresnet", "depth": 30})
    for depth in range(10, 100):
        if depth % 6 != 4:
            with pytest.raises(BadValueError, match="such as") as caught:
                build("model", {"name": "wideresnet", "depth": depth})
            near = int(str(caught.value).rpartition(" ")[2])
            assert near % 6 == 4
            assert abs(near - depth) <= 3
    with pytest.raises(BadValueError, match="'depth'.*28"):
        build("model", {"name": "wideresnet-28-10", "depth": 34})


# torchvision


def test_torchvision_shows_grey_images_as_colour_ones():
    grey, x = made(TorchVision(), (1, 32, 32)).eval(), torch.rand(2, 1, 32, 32)
    colour = made(TorchVision(), (3, 32, 32)).eval()
    assert torch.allclose(grey(x), colour(x.expand(-1, 3, -1, -1)), atol=1e-5)


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "squeezenet1_1"])
def test_torchvision_has_halves_where_it_ends_in_a_linear_layer(arch):
    model, x = made(TorchVision(arch=arch), (3, 40, 40)).eval(), torch.rand(2, 3, 40, 40)
    assert model(x).shape == (2, 10)
    if arch == "squeezenet1_1":
        assert not hasattr(model, "head")
        assert not hasattr(model, "features")
    else:
        assert torch.equal(model.head(model.features(x)), model(x))
        assert model.features(x).shape == (2, 1024)


@pytest.mark.parametrize(
    ("table", "shape", "parts"),
    [
        ({"arch": "resnet5"}, (3, 32, 32), ["'resnet5'", "did you mean 'resnet50'"]),
        ({"arch": "fasterrcnn_resnet50_fpn"}, (3, 32, 32), ["unknown torchvision classifier"]),
        ({"arch": "alexnet"}, (3, 32, 32), ["'alexnet' does not take images of 3x32x32"]),
        ({"arch": "vit_b_16"}, (3, 30, 30), ["'vit_b_16' does not take images of 3x30x30"]),
        ({"arch": "resnet18"}, (2, 32, 32), ["grey or colour", "2x32x32"]),
    ],
)
def test_torchvision_refuses_in_one_line(table, shape, parts):
    with pytest.raises(RobustkitError) as caught:
        made({"name": "torchvision", **table}, shape)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.slow
def test_every_torchvision_classifier_gives_logits_in_both_modes():
    import torchvision

    for arch in torchvision.models.list_models(module=torchvision.models):
        small = arch == "regnet_x_400mf"
        if arch.startswith("regnet") and not small:
            continue  # their weights cannot start without memory, and are vast
        with torch.device("cpu" if small else "meta"):
            model, x = made(TorchVision(arch=arch), (3, 224, 224), 7), torch.rand(2, 3, 224, 224)
            assert model.eval()(x).shape == model.train()(x).shape == (2, 7), arch
