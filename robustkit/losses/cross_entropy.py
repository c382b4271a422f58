"""Cross-entropy, for hard and soft labels."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robustkit.interfaces import At, Loss


class CrossEntropy(Loss):
    """The negative log-likelihood of the label (N,), or of soft labels (N, classes), in nats."""

    name = "cross-entropy"
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the label spread evenly over all classes"
    )

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return F.cross_entropy(logits, y, reduction="none", label_smoothing=self.label_smoothing)
