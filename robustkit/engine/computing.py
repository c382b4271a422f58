"""How a training computes: kernels, memory format, compilation, and logits in float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.errors import BadValueError
from robustkit.recipe import Fit

VARIANTS = 64
"""A compiled model has one variant for each size of a call, mode and set of weights that ask for
gradients; beyond this many the rest is not compiled."""


@contextmanager
def kernels(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """On a graphics card, compute the same way twice, or else by whatever kernels are fastest."""
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends
    fast = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    before = [kernel.fp32_precision for kernel in fast]
    flags = (torch.are_deterministic_algorithms_enabled(), backends.cudnn.benchmark)
    if deterministic:
        # The workspace that cuBLAS asks for, before it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        # Where an operation has no deterministic kernel a warning is due, not an end.
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        backends.cudnn.benchmark = not deterministic
        if not deterministic:
            for kernel in fast:
                kernel.fp32_precision = "tf32"
        yield
    finally:
        torch.use_deterministic_algorithms(flags[0], warn_only=True)
        backends.cudnn.benchmark = flags[1]
        for kernel, precision in zip(fast, before, strict=True):
            kernel.fp32_precision = precision


def adapt(model: nn.Module, fit: Fit, device: torch.device) -> None:
    """Make a model compute as the recipe says; its weights' names and its parts stay.

    Raises BadValueError where it should be compiled and nothing here can.
    """
    if fit.precision != "32":
        # What follows the logits has constants and differences that 16 bits do not hold.
        for part in (model, getattr(model, "head", None)):
            if isinstance(part, nn.Module):
                part.register_forward_hook(_in_float32)
    if fit.compile:
        require_compiler(device)
        torch._dynamo.config.recompile_limit = VARIANTS
        # Which sizes came first must not matter, for a resumed run begins with others.
        model.compile(dynamic=False)


def _in_float32(module: nn.Module, args: Any, logits: Tensor) -> Tensor:
    return logits.float()


def require_compiler(device: torch.device) -> None:
    """Raise BadValueError where torch.compile does not work for the device."""
    try:
        torch.compile(_probe)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds, and what they wrap has more
        needs = "Triton" if device.type == "cuda" else "a C++ compiler"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadValueError(
            f"fit.compile needs {needs} for '{device}', and compiling fails: {reason[:200]};"
            " use fit.compile=false"
        ) from None


def _probe(x: Tensor) -> Tensor:
    return x + 1
