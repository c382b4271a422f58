"""Any classifier of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import nn

from robustkit.errors import BadValueError, UnknownNameError
from robustkit.interfaces import Architecture
from robustkit.models.common import Headed, Normalised, Shape

OPTIONS = {
    # Two that would give more than one output in training mode.
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class TorchVision(Architecture):
    """A classifier of torchvision by its name there, with fresh weights as torchvision makes them.

    Grey images are shown to it as colour ones. Images that are too small for the architecture are
    refused.
    """

    name: ClassVar[str] = "torchvision"
    arch: str = Field(default="resnet18", description="resnet50, densenet121, vit_b_16, ...")

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)
        if arch not in known:
            raise UnknownNameError("torchvision classifier", arch, known)
        return arch

    def build(
        self, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module. Raises BadValueError for images that the architecture does not take."""
        import torchvision

        channels, height, width = shape
        size = f"{channels}x{height}x{width}"
        if channels not in (1, 3):
            raise BadValueError(f"torchvision's '{self.arch}' takes grey or colour images: {size}")
        options: dict[str, Any] = OPTIONS.get(self.arch, {})
        if self.arch.startswith("vit_"):
            options = {"image_size": height}
        try:
            net = torchvision.models.get_model(
                self.arch, weights=None, num_classes=classes, **options
            )
            with torch.no_grad():
                net.eval()(torch.zeros(2, 3, height, width))
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadValueError(
                f"torchvision's '{self.arch}' does not take images of {size}: {reason}"
            ) from None
        last = list(net.modules())[-1]
        kind = Headed if isinstance(last, nn.Linear) else Normalised
        return kind(mean, std, net.train(), channels=3)
