"""Winograd's convolutions for the passes of an attack: a quarter of the products, on a processor.

cuDNN takes them by itself on a graphics card; oneDNN, which computes on the processor, has none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

from robustkit.engine.places import replaced

OUT, IN = 4, 6
"""A tile of 4 x 4 results comes from 6 x 6 values, by 36 products a pair of channels, not 144."""
CHANNELS, WORK = 160, 8192
"""With fewer, or fewer tiles times channels, moving tiles about costs more than is saved."""
WASTE = 1.5
"""Tiles may cover so much more than the image."""

# Lavin and Gray 2016, section 4.3: B^T, G and A^T; each side of a tile takes them once.
_VALUES = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_WEIGHTS = torch.tensor([[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]])
_RESULTS = torch.tensor(
    [[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
VALUES, WEIGHTS, RESULTS = (torch.kron(m, m) for m in (_VALUES, _WEIGHTS / 24, _RESULTS))


def quick_passes(model: nn.Module) -> AbstractContextManager[object]:
    """Let a frozen model compute its 3x3 convolutions by Winograd's algorithm while this lasts.

    The results are those of float32 but for some 1e-5 of the largest. Convolutions elsewhere than
    on the processor, in lower precision, compiled, with a stride, or too small to gain stay as
    they are.
    """
    # A compiled model would be compiled anew; its attribute is how torch itself knows.
    compiled = getattr(model, "_compiled_call_impl", None) is not None
    return nullcontext() if compiled or torch.is_autocast_enabled("cpu") else Winograd()


def transformed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Transform a kernel (K, C, 3, 3), for values (36, C, K) and for gradients (36, K, C)."""
    k, c = weight.shape[:2]
    there = weight.detach().permute(2, 3, 1, 0)
    back = there.flip(0, 1).transpose(2, 3)
    return (
        (WEIGHTS @ there.reshape(9, -1)).view(-1, c, k),
        (WEIGHTS @ back.reshape(9, -1)).view(-1, k, c),
    )


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Convolve x (N, C, H, W), padded by 1, with a transformed kernel (36, C, K): (N, K, H, W).

    bias (K,) is added. Channels come last in memory. Source: Lavin and Gray 2016, Fast Algorithms
    for Convolutional Neural Networks (arXiv 1509.09308), algorithm 1, F(4x4, 3x3).
    """
    (n, c, h, w), k = x.shape, kernel.shape[2]
    down, across = tiles_along(h), tiles_along(w)
    out = x.new_empty(n, down, OUT, across, OUT, k)
    right, below = 1 + across * OUT - w, 1 + down * OUT - h
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    # As many tiles at once as channels: fewer read the kernel too often, more leave the cache.
    together = max(1, k // (down * across))
    for images, results in zip(padded.split(together), out.split(together), strict=True):
        tiles = images.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(4, 5, 0, 1, 2, 3)
        values = (VALUES @ tiles.reshape(IN * IN, -1)).view(IN * IN, -1, c)
        products = torch.bmm(values, kernel).view(IN * IN, -1)
        tiles = (RESULTS @ products).view(OUT, OUT, len(images), down, across, k)
        torch.add(tiles.permute(2, 3, 0, 4, 1, 5), bias, out=results)
    return out.view(n, down * OUT, across * OUT, k)[:, :h, :w].permute(0, 3, 1, 2)


def tiles_along(side: int) -> int:
    """Give how many tiles cover a side of so many pixels."""
    return -(-side // OUT)


class Convolution(torch.autograd.Function):
    """`convolve`, whose gradient with respect to x is one, too; the kernel gets none."""

    @staticmethod
    def forward(x: Tensor, there: Tensor, back: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        return convolve(x, there, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _, ctx.there, ctx.back, _ = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return Convolution.apply(gradients[0], ctx.back, ctx.there), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *frozen: Tensor) -> tuple[Tensor, int]:
        """Convolve several batches, such as the gradients of all logits, as one."""
        x = x.movedim(in_dims[0], 0)
        result: Tensor = Convolution.apply(x.flatten(0, 1), *frozen)
        return result.unflatten(0, x.shape[:2]), 0


class Winograd(TorchFunctionMode):
    """Takes the place of torch.conv2d where weights are frozen; they are transformed once."""

    def __init__(self) -> None:
        super().__init__()
        self._kernels: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d:
            return self._conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        geometry = tuple(map(_pair, (stride, padding, dilation)))
        if groups > 1 or geometry != ((1, 1),) * 3 or not worthwhile(input, weight):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        key = (id(weight), weight._version)
        if key not in self._kernels:
            self._kernels[key] = transformed(weight)
        result: Tensor = Convolution.apply(input, *self._kernels[key])
        return result if bias is None else result + bias.view(-1, 1, 1)


class Frozen(nn.Module):
    """A frozen convolution that takes Winograd's algorithm for the calls that gain by it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.kernels = conv, transformed(conv.weight)
        self.bias = 0.0 if conv.bias is None else conv.bias

    def forward(self, x: Tensor) -> Tensor:
        if not worthwhile(x, self.conv.weight):
            return self.conv(x)
        result: Tensor = Convolution.apply(x, *self.kernels, self.bias)
        return result


def with_winograd(model: nn.Module) -> bool:
    """Put `Frozen` in the place of wide 3x3 convolutions of a frozen model; say if it has any."""
    return replaced(model, is_wide, Frozen)


def is_wide(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Say whether a module is a convolution that `Frozen` can stand for."""
    if type(module) is not nn.Conv2d or module.groups > 1 or module.padding_mode != "zeros":
        return False
    geometry = (module.stride, module.padding, module.dilation)
    return large(module.weight) and geometry == ((1, 1),) * 3


def large(weight: Tensor) -> bool:
    """Say whether a kernel is 3x3, of many channels, and in single precision."""
    many = min(weight.shape[:2]) >= CHANNELS
    return many and weight.shape[2:] == (3, 3) and weight.dtype == torch.float32


def worthwhile(x: Tensor, weight: Tensor) -> bool:
    """Say whether a convolution can be computed so, and with a gain.

    Only parameters live as long as their model: another tensor could take a kernel's place.
    """
    possible = (
        isinstance(weight, nn.Parameter)
        and not weight.requires_grad
        and large(weight)
        and x.dim() == 4
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
    )
    if not possible:
        return False
    h, w = x.shape[2:]
    tiles = tiles_along(h) * tiles_along(w)
    return len(x) * tiles * min(weight.shape[:2]) >= WORK and tiles * OUT * OUT <= WASTE * h * w
