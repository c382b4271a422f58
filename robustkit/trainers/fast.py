"""Fast adversarial training: one step from a random start, ended when it overfits to that step."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PrivateAttr

from robustkit.component import State, slot
from robustkit.interfaces import Attack
from robustkit.trainers.adversarial import Adversarial


class Fast(Adversarial):
    """Adversarial training by FGSM from a random start, ended once it is robust to FGSM only.

    That is seen by held-out accuracy under the recipe's `select.attack`, which should be PGD; the
    best epoch is kept. Wong et al. 2020 (arXiv 2001.03994), algorithm 3; their code compares with
    the epoch before, on one batch of training points.
    """

    name = "fast"
    attack: Attack = slot({"name": "fgsm", "random_start": True}, "moves the points")
    drop: float = Field(
        default=0.2, gt=0, le=1, description="fall of held-out adversarial accuracy that ends it"
    )
    _best: float = PrivateAttr(default=0.0)

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        self._best = max(self._best, metrics.get("heldout_adversarial", 0.0))

    def enough(self, metrics: Mapping[str, float]) -> str:
        now = metrics.get("heldout_adversarial", self._best)
        if now >= self._best - self.drop:
            return ""
        return (
            f"catastrophic overfitting: held-out adversarial accuracy is {now:.1%},"
            f" and was {self._best:.1%}"
        )

    def state_dict(self) -> State:
        return {"best": self._best}

    def load_state_dict(self, state: State) -> None:
        self._best = state["best"]
