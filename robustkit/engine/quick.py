"""Cheaper passes for attacks, on a processor: the same function of the image, rewritten."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

from robustkit.engine.grey import with_grey
from robustkit.engine.winograd import with_winograd

LOGITS, GRADIENT = 1e-4, 0.05
"""How far the rewritten model may be from the model, as a share of the largest logit, and of the
gradient's length: in a deep network some of a million ReLUs are at their kink, where rounding
picks the side, and move it by a hundredth."""
EXAMPLES = 16
"""Images at which the two are compared, at most: a plain model's graph takes memory and time."""
SIZES = (8, 13)
"""Batches, besides that of the example, at which the two are compared."""
SURE = 0.9
"""Share of the points whose gradients must agree: one that a kink moves further may be there."""
RELUS = (nn.ReLU, F.relu, torch.relu, "relu")
POOLS = (nn.MaxPool2d, F.max_pool2d, torch.max_pool2d)


class Quick(nn.Module):
    """A model in two forms: one to go backward through, and one for forward alone."""

    def __init__(self, both: nn.Module, ahead: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.both, self.ahead = both, ahead

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        searched = torch.is_grad_enabled() and x.requires_grad
        logits: Tensor = self.both(x) if searched else self.ahead(x)
        return logits


def quickened(model: nn.Module, x: Tensor) -> nn.Module:
    """Give what attacks may ask in place of a frozen model: its rewriting, or the model itself.

    Batch norm becomes part of the convolution before it, pooling comes before ReLU, channels lie
    last in memory, grey images get their gradient in blocks of pixels, wide convolutions are
    Winograd's, and where none is wide, what needs no gradient is a frozen program with fused
    kernels. `x` (N, C, H, W) are some images; the first EXAMPLES are looked at. The model itself is
    given back wherever its code cannot be read as a graph (control flow, hooks, training mode,
    compiled or scripted), on another device than the processor, and where logits or gradients of
    the two differ. Verdicts are never of the rewriting.
    """
    x = x[:EXAMPLES]
    on_processor = all(tensor.device.type == "cpu" for tensor in (x, *model.parameters()))
    if not on_processor or x.dim() != 4 or any(map(_unreadable, model.modules())):
        return model
    # Tracing a stranger's code may raise anything; the plain model is always right.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quick = _rewritten(model, x)
            return quick if _agree(model, quick, x) else model
    except Exception:
        return model


def _unreadable(module: nn.Module) -> bool:
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return module.training or any(hooks) or compiled


def _rewritten(model: nn.Module, x: Tensor) -> Quick:
    graph = _pooled_first(fx.symbolic_trace(fuse(model)))
    both = graph.to(memory_format=torch.channels_last).requires_grad_(False)
    if with_winograd(both):
        return Quick(with_grey(both), both)
    with torch.no_grad():
        ordered = x.contiguous(memory_format=torch.channels_last)
        # Its own check imports all of torch.distributed and sympy, for seconds; `_agree` is ours.
        traced = torch.jit.trace(both, ordered, check_trace=False)
        ahead = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        return Quick(with_grey(both), ahead)


def _pooled_first(module: fx.GraphModule) -> fx.GraphModule:
    """Take max-pooling before ReLU: the same values and gradients, of a quarter of the pixels."""
    for pool in module.graph.nodes:
        relu = pool.args[0] if _is(module, pool, POOLS) else None
        if not (isinstance(relu, fx.Node) and _is(module, relu, RELUS) and len(relu.users) == 1):
            continue
        pool.args = (relu.args[0], *pool.args[1:])
        pool.replace_all_uses_with(relu)
        relu.args = (pool, *relu.args[1:])
        pool.append(relu)
    module.graph.lint()
    module.recompile()
    return module


def _is(module: fx.GraphModule, node: fx.Node, kinds: tuple[object, ...]) -> bool:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))) in kinds
    return node.op in ("call_function", "call_method") and node.target in kinds


def _agree(model: nn.Module, quick: nn.Module, x: Tensor) -> bool:
    """Compare the two at images, at noise, and at batches of other sizes."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    # Flat parts of an image make ties of pooling and ReLU, where any subgradient is right.
    for images in (0.9 * x + 0.1 * noise, noise):
        logits, gradients = _asked(model, images)
        again, others = _asked(quick, images)
        close = LOGITS * logits.abs().max()
        apart = (gradients - others).flatten(1).norm(dim=1)
        same = apart <= GRADIENT * gradients.flatten(1).norm(dim=1)
        if not ((logits - again).abs().max() <= close and same.float().mean() >= SURE):
            return False
        with torch.no_grad():
            asked = [quick(images[:size]) for size in (len(images), *SIZES)]
        if any((logits[: len(part)] - part).abs().max() > close for part in asked):
            return False
    return True


def _asked(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give logits (N, classes) and the gradient of a sum of them in which no two weigh the same."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits: Tensor = model(x)
        weights = torch.arange(1.0, logits.shape[1] + 1).cos()
        (gradient,) = torch.autograd.grad((logits * weights).sum(), x)
    return logits.detach(), gradient
