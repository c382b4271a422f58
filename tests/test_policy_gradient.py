"""The policy losses against gradients and values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from robustkit_plugins.policy_gradient.losses import (
    PolicyGradient,
    PolicyWarmup,
    TwoPhase,
    policy_loss,
    sample,
    warmup_loss,
)
from robustkit_plugins.policy_gradient.rewards import Amounts, amounts, earnings
from torch import Tensor
from torch.nn import functional as F

from robustkit import At, BadValueError, Clock, Loss
from robustkit.catalog import build
from robustkit.engine.rng import PointRng

C = 5
LOGITS = torch.tensor([[0.3, -1.2, 0.8, 2.0, 0.1], [1.5, 0.2, -0.4, 0.0, -2.0]]).double()
Y = torch.tensor([2, 0])


def at(n: int, seed: int = 0, step: int = 0) -> At:
    ids = torch.arange(n)
    return At(Clock(step=step), ids, PointRng(seed, f"loss at {step}", ids))


def expected_gradient(reward: Amounts, penalty: Amounts) -> Tensor:
    """Average the gradient of the surrogate over all actions, exactly."""
    logits = LOGITS.clone().requires_grad_()
    log_policy = logits.log_softmax(1)
    total = torch.zeros(())
    for a in range(C):
        action = torch.full_like(Y, a)
        won, lost = earnings(action, Y, amounts(reward, penalty, C))
        chance = log_policy[:, a].detach().exp()
        total = total + (chance * policy_loss(log_policy, action, won, lost)).sum()
    return torch.autograd.grad(total, logits)[0]


def policy_gradient_of_label() -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(logits.softmax(1).gather(1, Y.unsqueeze(1)).sum(), logits)[0]


def test_expected_gradient_of_equation_1_is_minus_two_that_of_the_label() -> None:
    torch.testing.assert_close(expected_gradient(1.0, 1.0), -2 * policy_gradient_of_label())


@pytest.mark.parametrize(("reward", "penalty"), [(1.0, 0.25), (0.0, 1.5), (0.7, 0.0)])
def test_expected_gradient_of_equation_4_scales_with_reward_plus_penalty(
    reward: float, penalty: float
) -> None:
    torch.testing.assert_close(
        expected_gradient(reward, penalty), -(reward + penalty) * policy_gradient_of_label()
    )


def test_expected_gradient_takes_the_amounts_of_the_points_class() -> None:
    reward, penalty = (1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 0.6, 0.7, 0.8, 0.9)
    scale = torch.tensor([3.0 + 0.7, 1.0 + 0.5]).double().unsqueeze(1)
    torch.testing.assert_close(
        expected_gradient(reward, penalty), -scale * policy_gradient_of_label()
    )


def test_sampled_loss_has_that_gradient_on_average() -> None:
    n = 200_000
    logits = LOGITS[:1].expand(n, C).clone().requires_grad_()
    loss = PolicyGradient(penalty=0.5)(logits, Y[:1].expand(n), at(n))
    mean = torch.autograd.grad(loss.sum(), logits)[0].mean(0)
    expected = -1.5 * policy_gradient_of_label()[0]
    assert (mean - expected).abs().max() < 0.01


def test_actions_come_as_often_as_the_policy_says() -> None:
    n = 100_000
    log_policy = LOGITS[:1].log_softmax(1).expand(n, C)
    shares = torch.bincount(sample(log_policy, at(n)), minlength=C) / n
    assert (shares - log_policy[0].exp()).abs().max() < 0.006


def test_actions_are_drawn_anew_each_step_and_alike_in_any_batch() -> None:
    log_policy = torch.zeros(64, C).log_softmax(1)
    first = sample(log_policy, at(64))
    assert torch.equal(first, sample(log_policy, at(64)))
    assert torch.equal(first[:10], sample(log_policy[:10], at(10)))
    assert not torch.equal(first, sample(log_policy, at(64, step=1)))


def test_greedy_values_by_hand() -> None:
    # Point 0 is wrong (3 for 2) and loses its class's penalty, point 1 is right.
    loss = PolicyGradient(action="greedy", reward=(2, 1, 1, 1, 1), penalty=(1, 1, 0.5, 1, 1))
    policy = LOGITS.softmax(1)
    by_hand = [0.5 * math.log(policy[0, 3]), -2 * math.log(policy[1, 0])]
    torch.testing.assert_close(loss(LOGITS, Y), torch.tensor(by_hand).double())


def test_greedy_loss_is_bounded_by_the_evenest_policy() -> None:
    logits = torch.randn(2000, C, generator=torch.Generator().manual_seed(0))
    y = torch.arange(2000) % C
    penalty = 1.5
    loss = PolicyGradient(action="greedy", penalty=penalty)(logits, y)
    assert loss.min() >= -penalty * math.log(C)
    even = PolicyGradient(action="greedy", penalty=penalty)(torch.zeros(1, C), torch.tensor([1]))
    torch.testing.assert_close(even, torch.tensor([-penalty * math.log(C)]))


def test_warmup_values_by_hand() -> None:
    log_policy = LOGITS.log_softmax(1)
    action = torch.tensor([3, 0])
    won, lost = earnings(action, Y, amounts(1.0, 0.75, C))
    others = sum(log_policy[0, i].item() for i in (0, 1, 2, 4))
    by_hand = [-0.75 / 4 * others, -log_policy[1, 0].item()]
    torch.testing.assert_close(
        warmup_loss(log_policy, action, won, lost), torch.tensor(by_hand).double()
    )


def test_warmup_samples_its_actions() -> None:
    n = 50
    logits = LOGITS[:1].expand(n, C)
    log_policy = logits.log_softmax(1)
    y = Y[:1].expand(n)
    action = sample(log_policy, at(n))
    expected = warmup_loss(log_policy, action, *earnings(action, y, amounts(1.0, 0.75, C)))
    torch.testing.assert_close(PolicyWarmup()(logits, y, at(n)), expected)
    assert len(action.unique()) > 1


@pytest.mark.parametrize("loss", [PolicyGradient(action="greedy", penalty=0.5), PolicyWarmup()])
def test_soft_labels_earn_the_average_over_labels(loss: Loss) -> None:
    share = torch.tensor([[0.2, 0.0, 0.5, 0.3, 0.0]]).double()
    mixed = loss(LOGITS[:1], share, at(1))
    apart = torch.stack([loss(LOGITS[:1], torch.tensor([k]), at(1)) for k in range(C)], 1)
    torch.testing.assert_close(mixed, (share * apart).sum(1))


@pytest.mark.parametrize("name", ["policy-gradient", "policy-warmup", "two-phase"])
def test_ascend_is_cross_entropy(name: str) -> None:
    loss = build("loss", name)
    torch.testing.assert_close(
        loss.ascend(LOGITS, Y, at(2)), F.cross_entropy(LOGITS, Y, reduction="none")
    )


@pytest.mark.parametrize("loss", [PolicyGradient(), PolicyWarmup()])
def test_finite_where_a_probability_rounds_to_zero(loss: Loss) -> None:
    logits = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    value = loss(logits, torch.tensor([2]), at(1))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_the_switch_happens_once() -> None:
    loss = TwoPhase(switch_at=0.8)
    assert loss.phase(Clock()) is loss.warmup
    loss.end_epoch({"heldout_accuracy": 0.79})
    loss.end_epoch({})
    assert loss.phase(Clock()) is loss.warmup
    loss.end_epoch({"heldout_accuracy": 0.8})
    loss.end_epoch({"heldout_accuracy": 0.1})
    assert loss.phase(Clock()) is loss.main
    torch.testing.assert_close(loss(LOGITS, Y), PolicyGradient(action="greedy")(LOGITS, Y))
    again = TwoPhase(switch_at=0.8)
    again.load_state_dict(loss.state_dict())
    assert again.phase(Clock()) is again.main


@pytest.mark.parametrize(
    ("switch", "first"), [(0, 0), (1, 1), (75, 75), (0.75, 75), (2.5, 2.5), (0.29, 29)]
)
def test_the_switch_by_epochs_is_taken_from_the_clock(switch: float, first: float) -> None:
    """In kind with the schedule's milestones: 0.75 of 100 epochs are 75, whatever accuracy says."""
    loss = TwoPhase(switch_epoch=switch)
    loss.end_epoch({"heldout_accuracy": 1.0})
    in_main = [loss.phase(Clock(step // 4, 100, step, 400)) is loss.main for step in range(400)]
    assert in_main == [step >= 4 * first for step in range(400)]


def test_the_switch_by_epochs_tells_losses_and_attacks_apart() -> None:
    loss = TwoPhase(warmup="cross-entropy", main=PolicyGradient(action="greedy"), switch_epoch=0.5)
    early, late = (At(Clock(step=step, steps=10)) for step in (4, 5))
    cross_entropy = F.cross_entropy(LOGITS, Y, reduction="none")
    torch.testing.assert_close(loss(LOGITS, Y, early), cross_entropy)
    torch.testing.assert_close(loss(LOGITS, Y, late), PolicyGradient(action="greedy")(LOGITS, Y))
    torch.testing.assert_close(loss.ascend(LOGITS, Y, late), cross_entropy)


def test_wrong_amounts_are_one_line() -> None:
    with pytest.raises(BadValueError, match="'penalty' has 2 numbers for 5 classes"):
        PolicyGradient(penalty=(1.0, 2.0))(LOGITS, Y, at(2))
    with pytest.raises(BadValueError, match="rng"):
        PolicyGradient()(LOGITS, Y)
    with pytest.raises(BadValueError, match="reward"):
        build("loss", {"name": "policy-gradient", "reward": -1})
    with pytest.raises(BadValueError, match="'switch_at' .* no effect beside 'switch_epoch'"):
        build("loss", {"name": "two-phase", "switch_at": 0.9, "switch_epoch": 75})
