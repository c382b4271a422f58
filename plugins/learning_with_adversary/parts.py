"""A model cut in two at a layer: what it makes of images there, and what it makes of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustkit import BadValueError, UnknownNameError

SAME = 1e-3
"""Difference of logits, relative to the largest, that rounding may make."""


class Parts(nn.Module):
    """The upper part of a model as a model of its own: representations (N, ...) to logits.

    Cut before the model's `head` where `layer` is empty, else after that layer, which all that the
    model knows of a point must go through.
    """

    def __init__(self, model: nn.Module, layer: str, x: Tensor) -> None:
        super().__init__()
        self.training, self.layer = model.training, layer
        self.model: Any = model
        # What goes in below where only the layer's output counts; two, for batch norm refuses one.
        self.dummy = torch.zeros_like(x[:2])
        if layer:
            try:
                model.get_submodule(layer)
            except AttributeError:
                names = [name for name, _ in model.named_modules() if name]
                hint = "trainer.layer is one of the model's"
                raise UnknownNameError("layer", layer, names, hint) from None
        elif not (hasattr(model, "features") and hasattr(model, "head")):
            raise BadValueError(
                "the model has no `features` and `head`: name a layer, trainer.layer=..."
            )

    def lower(self, x: Tensor) -> Tensor:
        """Give what the layer makes of images (N, C, H, W)."""
        if not self.layer:
            return self.model.features(x)
        seen: list[Tensor] = []

        def look(out: Tensor) -> Tensor:
            seen.append(out)
            return out

        self._run(x, look)
        return seen[0]

    def forward(self, inside: Tensor) -> Tensor:
        """Give the logits of what the layer is to have made (N, ...)."""
        if not self.layer:
            return self.model.head(inside)
        return self._run(self.dummy, lambda out: inside)

    def shifted(self, x: Tensor, shift: Tensor) -> Tensor:
        """Give the logits of images where the layer's output is moved by `shift` (N, ...)."""
        if not self.layer:
            return self.model.head(self.model.features(x) + shift)
        return self._run(x, lambda out: out + shift)

    def check(self, x: Tensor) -> None:
        """Raise BadValueError where something goes past the layer, as far as eval mode shows."""
        if self.training or not self.layer:
            return
        whole, inside = self.model(x), self.lower(x)
        try:
            parted = self(inside)
        except RuntimeError:  # of another number of points past the layer than through it
            parted = torch.full_like(whole, torch.nan)
        if not (whole - parted).abs().max() <= SAME * whole.abs().max():
            raise BadValueError(
                f"layer '{self.layer}' does not hold all that the model knows of a point:"
                " something goes past it; name one that comes before or after"
            )

    def _run(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Run the model on x with the layer's output changed."""
        calls = 0

        def hook(module: nn.Module, inputs: object, out: object) -> Tensor:
            nonlocal calls
            calls += 1
            if not isinstance(out, Tensor):
                raise BadValueError(f"layer '{self.layer}' gives no tensor, {type(out).__name__}")
            return change(out)

        with self.model.get_submodule(self.layer).register_forward_hook(hook):
            logits: Tensor = self.model(x)
        if calls != 1:
            hint = "" if calls else " (a compiled model shows none of its layers)"
            raise BadValueError(
                f"layer '{self.layer}' is used {calls} times in a pass, not once{hint}"
            )
        return logits
