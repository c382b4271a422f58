"""Convolutions of one channel, whose gradient by the image is cheap: for attacks on grey images."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from robustkit.engine.places import replaced

BLOCK = 4
"""Side of the blocks of pixels that are computed as channels: processors compute many channels as
fast as one."""


def in_blocks(weight: Tensor) -> Tensor:
    """Give the kernel (B*B, K, k+B-1, k+B-1) that takes gradients to blocks of B x B pixels.

    weight (K, 1, k, k). Pixel (r, s) of a block sees the mirrored kernel moved by r and s, so that
    a convolution of stride B gives a channel for each pixel of the block.
    """
    k = weight.shape[2]
    moved = weight.new_zeros(BLOCK, BLOCK, weight.shape[0], k + BLOCK - 1, k + BLOCK - 1)
    for r in range(BLOCK):
        for s in range(BLOCK):
            moved[r, s, :, r : r + k, s : s + k] = weight.flip(2, 3)[:, 0]
    return moved.flatten(0, 1).to(memory_format=torch.channels_last)


class Convolution(torch.autograd.Function):
    """A plain convolution forward; backward, one that gives blocks of pixels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, back: Tensor, padding: int
    ) -> Tensor:
        ctx.weight, ctx.back, ctx.padding, ctx.size = weight, back, padding, x.shape[2:]
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = gradients
        if ctx.size[0] % BLOCK or ctx.size[1] % BLOCK:
            shape = (len(gradient), 1, *ctx.size)
            slope = conv2d_input(shape, ctx.weight, gradient, padding=ctx.padding)
        else:
            around = ctx.weight.shape[2] - 1 - ctx.padding
            blocks = F.conv2d(gradient, ctx.back, stride=BLOCK, padding=around)
            slope = F.pixel_shuffle(blocks, BLOCK)
        return slope, None, None, None, None


class Grey(nn.Module):
    """A frozen convolution of one channel."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.back = conv, in_blocks(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding = int(conv.padding[0])
        result: Tensor = Convolution.apply(x, conv.weight, conv.bias, self.back, padding)
        return result


def is_grey(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Say whether a module is a convolution that `Grey` can stand for."""
    if type(module) is not nn.Conv2d or isinstance(module.padding, str):
        return False
    (k, other), (padding, across) = module.kernel_size, module.padding
    plain = module.stride == module.dilation == (1, 1) and module.padding_mode == "zeros"
    return module.in_channels == 1 and plain and k == other and padding == across < k


def with_grey(model: nn.Module) -> nn.Module:
    """Put `Grey` in the place of the convolutions of one channel inside a model."""
    replaced(model, is_grey, Grey)
    return model
