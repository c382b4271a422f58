"""MART: adversarial training that cares more for points which are wrong already."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from robustkit.component import slot
from robustkit.interfaces import Attack, Batch, Clock, Loss, Terms
from robustkit.losses.divergence import kl
from robustkit.trainers.adversarial import Adversarial


class Mart(Adversarial):
    """Minimise `loss(f(x'), y) + beta KL(f(x) || f(x')) (1 - p_y(x))`.

    Wang et al. 2020 (ICLR, Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples), equation 11; beta (their lambda) is 5 in their ResNet-18's script. For soft labels
    p_y is what the model gives them on average.
    """

    name = "mart"
    attack: Attack = slot({"name": "pgd", "steps": 10, "noise": 0.001}, "moves the points")
    loss: Loss = slot("boosted-cross-entropy", "what is minimised at the moved points")
    beta: float = Field(default=5.0, ge=0, description="weight of the divergence, lambda")

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        clean = model(batch.x if batch.clean is None else batch.clean)
        logits = model(batch.x)
        doubt = 1 - _probability(clean, batch.y)
        loss = self.loss(logits, batch.y, self._kit.at(batch, clock))
        return Terms(loss + self.beta * kl(clean, logits) * doubt, logits, {"doubt": doubt})


def _probability(logits: Tensor, y: Tensor) -> Tensor:
    """Give the probability (N,) of labels (N,), or the mean one of soft labels (N, classes)."""
    probabilities = logits.float().softmax(1)
    if y.dim() == 1:
        return probabilities.gather(1, y.unsqueeze(1)).squeeze(1)
    return (y * probabilities).sum(1)
