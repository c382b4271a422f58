"""A class is an action that earns a reward or a penalty: losses whose gradient is the policy's.

The policy is the softmax of the logits. An action `a` on a point of class `y` earns `reward[y]`
if `a = y`, else minus `penalty[y]` (Kim et al. 2021, equation 3); for soft labels it earns what
it earns on average over labels drawn from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor
from torch.nn import functional as F

from robustkit import At, BadValueError, Loss, State, slot

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Amounts = Amount | tuple[Amount, ...]

REWARD = "of a right action: one number, or one a class"
PENALTY = "of a wrong action: one number, or one a (true) class"


def sample(log_policy: Tensor, at: At) -> Tensor:
    """Draw an action (N,) from each policy (N, classes), by inversion of its distribution."""
    if at.rng is None:
        raise BadValueError("a loss that samples its actions needs random numbers: At(rng=...)")
    below = log_policy.detach().double().exp().cumsum(1)
    u = at.rng.uniform(at="action").double() * below[:, -1]
    return (below <= u.unsqueeze(1)).sum(1).clamp(max=log_policy.shape[1] - 1)


def earnings(
    action: Tensor, y: Tensor, like: Tensor, reward: Amounts, penalty: Amounts
) -> tuple[Tensor, Tensor]:
    """Give the reward and the penalty (N,) that actions (N,) earn; `like` is (N, classes)."""
    target = (F.one_hot(y, like.shape[1]) if y.dim() == 1 else y).to(like)
    chosen = action.unsqueeze(1)
    won = target * _by_class(reward, "reward", like)
    lost = target * _by_class(penalty, "penalty", like)
    return won.gather(1, chosen).squeeze(1), lost.scatter(1, chosen, 0.0).sum(1)


def _by_class(amounts: Amounts, option: str, like: Tensor) -> Tensor:
    values = like.new_tensor(amounts)
    if values.dim() and len(values) != like.shape[1]:
        raise BadValueError(
            f"option '{option}' has {len(values)} numbers for {like.shape[1]} classes;"
            " give one number, or one a class"
        )
    return values


def policy_loss(log_policy: Tensor, action: Tensor, won: Tensor, lost: Tensor) -> Tensor:
    """Give `-r log pi_a` (N,), `r = won - lost`: Gupta 2020, equation 1; Kim 2021, equation 4."""
    return -(won - lost) * log_policy.gather(1, action.unsqueeze(1)).squeeze(1)


def warmup_loss(log_policy: Tensor, action: Tensor, won: Tensor, lost: Tensor) -> Tensor:
    """Give Kim's equation 12 (N,): a wrong action raises the other classes in place of its own."""
    chosen = log_policy.gather(1, action.unsqueeze(1)).squeeze(1)
    others = (log_policy.sum(1) - chosen) / (log_policy.shape[1] - 1)
    return -(won * chosen + lost * others)


class PolicyGradient(Loss):
    """The policy gradient's surrogate `-r log pi_a`; the action is not differentiated through.

    Sampled actions with reward and penalty 1 are Gupta et al. 2020, equation 1; its expected
    gradient is `-(reward + penalty)` times that of `pi_y`. Greedy ones (`a` is the largest
    logit) are Kim et al. 2021, equation 4 without randomness, at least `-penalty log(classes)`.
    """

    name = "policy-gradient"
    action: Literal["sampled", "greedy"] = Field(
        default="sampled", description="drawn from the policy anew each step, or its largest"
    )
    reward: Amounts = Field(default=1.0, description=REWARD)
    penalty: Amounts = Field(default=1.0, description=PENALTY)

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        log_policy = logits.log_softmax(1)
        action = log_policy.argmax(1) if self.action == "greedy" else sample(log_policy, at)
        won, lost = earnings(action, y, log_policy, self.reward, self.penalty)
        return policy_loss(log_policy, action, won, lost)

    def ascend(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return F.cross_entropy(logits, y, reduction="none")


class PolicyWarmup(Loss):
    """The warm-up loss: sampled actions, and a wrong one raises all other classes evenly.

    Kim et al. 2021, equation 12 (its brackets as equation 13 shows them).
    """

    name = "policy-warmup"
    reward: Amounts = Field(default=1.0, description=REWARD)
    penalty: Amounts = Field(default=0.75, description=PENALTY)

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        log_policy = logits.log_softmax(1)
        action = sample(log_policy, at)
        won, lost = earnings(action, y, log_policy, self.reward, self.penalty)
        return warmup_loss(log_policy, action, won, lost)

    def ascend(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return F.cross_entropy(logits, y, reduction="none")


class TwoPhase(Loss):
    """One loss until held-out accuracy first reaches `switch_at`, and another from then on.

    Kim et al. 2021, section "Policy Loss": equation 12, then equation 4 without randomness. The
    paper watches test accuracy; held-out training data stand in for it.
    """

    name = "two-phase"
    warmup: Loss = slot("policy-warmup", "loss of the first phase")
    main: Loss = slot({"name": "policy-gradient", "action": "greedy"}, "loss of the second phase")
    switch_at: float = Field(default=0.8, ge=0, le=1, description="held-out accuracy that ends it")
    _switched: bool = PrivateAttr(default=False)

    @property
    def phase(self) -> Loss:
        """The loss that counts now."""
        return self.main if self._switched else self.warmup

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return self.phase(logits, y, at)

    def ascend(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        return self.phase.ascend(logits, y, at)

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        self._switched |= metrics.get("heldout_accuracy", 0.0) >= self.switch_at

    def state_dict(self) -> State:
        return {"switched": self._switched}

    def load_state_dict(self, state: State) -> None:
        self._switched = state["switched"]
