"""A class is an action that earns a reward or a penalty: losses whose gradient is the policy's.

The policy is the softmax of the logits; what actions earn is in `rewards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from robustkit import At, BadValueError, Clock, Loss, State, slot

from .rewards import PENALTY, Amounts, Rewarded


def sample(log_policy: Tensor, at: At) -> Tensor:
    """Draw an action (N,) from each policy (N, classes), by inversion of its distribution."""
    if at.rng is None:
        raise BadValueError("a loss that samples its actions needs random numbers: At(rng=...)")
    below = log_policy.detach().double().exp().cumsum(1)
    u = at.rng.uniform(at="action").double() * below[:, -1]
    return (below <= u.unsqueeze(1)).sum(1).clamp(max=log_policy.shape[1] - 1)


def policy_loss(log_policy: Tensor, action: Tensor, won: Tensor, lost: Tensor) -> Tensor:
    """Give `-r log pi_a` (N,), `r = won - lost`: Gupta 2020, equation 1; Kim 2021, equation 4."""
    return -(won - lost) * log_policy.gather(1, action.unsqueeze(1)).squeeze(1)


def warmup_loss(log_policy: Tensor, action: Tensor, won: Tensor, lost: Tensor) -> Tensor:
    """Give Kim's equation 12 (N,): a wrong action raises the other classes in place of its own."""
    chosen = log_policy.gather(1, action.unsqueeze(1)).squeeze(1)
    others = (log_policy.sum(1) - chosen) / (log_policy.shape[1] - 1)
    return -(won * chosen + lost * others)


class PolicyGradient(Rewarded):
    """The policy gradient's surrogate `-r log pi_a`; the action is not differentiated through.

    Sampled actions with reward and penalty 1 are Gupta et al. 2020, equation 1; its expected
    gradient is `-(reward + penalty)` times that of `pi_y`. Greedy ones (`a` is the largest
    logit) are Kim et al. 2021, equation 4 without randomness, at least `-penalty log(classes)`.
    """

    name = "policy-gradient"
    action: Literal["sampled", "greedy"] = Field(
        default="sampled", description="drawn from the policy anew each step, or its largest"
    )

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        log_policy = logits.log_softmax(1)
        action = log_policy.argmax(1) if self.action == "greedy" else sample(log_policy, at)
        won, lost = self.earn(action, y, log_policy, at)
        return policy_loss(log_policy, action, won, lost)


class PolicyWarmup(Rewarded):
    """The warm-up loss: sampled actions, and a wrong one raises all other classes evenly.

    Kim et al. 2021, equation 12 (its brackets as equation 13 shows them).
    """

    name = "policy-warmup"
    penalty: Amounts = Field(default=0.75, description=PENALTY)

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        log_policy = logits.log_softmax(1)
        action = sample(log_policy, at)
        won, lost = self.earn(action, y, log_policy, at)
        return warmup_loss(log_policy, action, won, lost)


class TwoPhase(Loss):
    """One loss until held-out accuracy first reaches `switch_at`, and another from then on.

    Kim et al. 2021, section "Experiments": equation 12, then equation 4 without randomness. The
    paper watches test accuracy; held-out training data stand in for it. Beside TRADES it switches
    after a number of epochs instead (table 6): `switch_epoch`.
    """

    name = "two-phase"
    warmup: Loss = slot("policy-warmup", "loss of the first phase")
    main: Loss = slot({"name": "policy-gradient", "action": "greedy"}, "loss of the second phase")
    switch_at: float = Field(default=0.8, ge=0, le=1, description="held-out accuracy that ends it")
    switch_epoch: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="instead: epochs that the first phase takes; below 1, a share of all epochs",
    )
    _switched: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _one_switch(self) -> TwoPhase:
        watched = type(self).model_fields["switch_at"].default
        if self.switch_epoch is not None and self.switch_at != watched:
            raise BadValueError(
                f"option 'switch_at' of loss '{self.name}' has no effect beside 'switch_epoch';"
                " give one of the two"
            )
        return self

    def phase(self, clock: Clock) -> Loss:
        """Give the loss that counts at a time."""
        mark = self.switch_epoch
        switched = self._switched if mark is None else clock.reached(mark)
        return self.main if switched else self.warmup

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return self.phase(at.clock)(logits, y, at)

    def ascend(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return self.phase(at.clock).ascend(logits, y, at)

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        self._switched |= metrics.get("heldout_accuracy", 0.0) >= self.switch_at

    def state_dict(self) -> State:
        return {"switched": self._switched}

    def load_state_dict(self, state: State) -> None:
        self._switched = state["switched"]
