"""Modules that stand in the places of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard, TypeVar

from torch import nn

Old = TypeVar("Old", bound=nn.Module)


def replaced(
    model: nn.Module,
    fits: Callable[[nn.Module], TypeGuard[Old]],
    stand_in: Callable[[Old], nn.Module],
) -> bool:
    """Put a stand-in in the place of each module inside a model that fits; say if any did."""
    found = False
    for name, module in list(model.named_modules()):
        if name and fits(module):
            parent, _, place = name.rpartition(".")
            setattr(model.get_submodule(parent), place, stand_in(module))
            found = True
    return found
