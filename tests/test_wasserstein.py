"""The Wasserstein loss against an exact solver of optimal transport, and WPGD against PGD."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustkit_plugins.wasserstein_pgd.loss import Wasserstein, log_cost, wasserstein_loss
from robustkit_plugins.wasserstein_pgd.wpgd import WPGD, WassersteinTraining
from scipy.optimize import linprog
from torch import Tensor, nn

from robustkit import BadValueError, Clock, LabelMetric, RobustkitError
from robustkit.attacks.pgd import PGD
from robustkit.testing.bench import BenchKit, batch_of, conv_model, conv_points, propose
from robustkit.threat import ThreatModel

CLASSES = 5


def costs_of(seed: int, classes: int = CLASSES, power: float = 1.0) -> Tensor:
    draws = np.random.default_rng(seed).random((classes, classes))
    costs = (draws + draws.T) / (draws + draws.T).max()
    np.fill_diagonal(costs, 0)
    return torch.from_numpy(LabelMetric(tuple("abcdefgh"[:classes]), costs).power(power))


def transport(p: Tensor, q: Tensor, costs: Tensor) -> float:
    """Give the least cost of moving p to q: the linear program itself."""
    k = len(p)
    rows = np.kron(np.eye(k), np.ones(k))
    columns = np.kron(np.ones(k), np.eye(k))
    sums, shares = np.vstack((rows, columns)), np.concatenate((p.numpy(), q.numpy()))
    # The last follows from the others; the solver's own cuts stumble over shares of 1e-11.
    options = {"presolve": False}
    return float(
        linprog(costs.numpy().ravel(), A_eq=sums[:-1], b_eq=shares[:-1], options=options).fun
    )


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.5, 1.0, 2.5, 10.0]),
    st.integers(2, 8),
    st.floats(0.1, 8),
)
@settings(max_examples=60, deadline=None)
def test_it_is_the_optimal_transport_to_the_label(
    seed: int, power: float, classes: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(1, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (1,), generator=generator)
    costs = costs_of(seed, classes, power)
    exact = transport(logits.softmax(1)[0], torch.eye(classes, dtype=torch.float64)[y[0]], costs)
    assert wasserstein_loss(logits, y, costs).item() == pytest.approx(exact, abs=1e-6)
    soft = torch.rand(1, classes, generator=generator, dtype=torch.float64)
    soft /= soft.sum()
    exact = transport(logits.softmax(1)[0], soft[0], costs)
    assert wasserstein_loss(logits, soft, costs).item() >= exact - 1e-6


@pytest.mark.parametrize("entropy", [0.0, 0.7])
def test_gradients_are_those_of_the_values(entropy: float) -> None:
    logits = torch.randn(3, CLASSES, dtype=torch.float64, requires_grad=True)
    y, costs = torch.tensor([0, 2, 4]), costs_of(1)
    assert torch.autograd.gradcheck(lambda z: wasserstein_loss(z, y, costs, entropy), (logits,))
    assert torch.autograd.gradcheck(lambda z: log_cost(z, y, costs), (logits,))


def test_where_every_error_costs_one_it_is_the_chance_of_an_error() -> None:
    logits, y = torch.randn(4, CLASSES), torch.tensor([0, 1, 2, 3])
    doubt = 1 - logits.softmax(1).gather(1, y[:, None]).squeeze(1)
    assert torch.allclose(wasserstein_loss(logits, y), doubt, atol=1e-6)
    assert torch.allclose(Wasserstein()(logits, y), doubt, atol=1e-6)
    assert torch.allclose(Wasserstein().ascend(logits, y), doubt.log(), atol=1e-5)


def test_the_entropy_term_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])
    nats = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    found = wasserstein_loss(logits, torch.tensor([0]), None, entropy=0.5)
    assert found.item() == pytest.approx(0.25 - 0.5 * nats / math.log(2))


def test_power_zero_keeps_right_answers_free() -> None:
    logits, y = torch.randn(4, CLASSES, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    found = wasserstein_loss(logits, y, costs_of(2, power=0))
    assert torch.allclose(found, wasserstein_loss(logits, y))


@pytest.mark.parametrize("gap", [1.0, 20.0, 60.0, 500.0])
def test_attacks_see_the_costly_class_however_sure_the_model_is(gap: float) -> None:
    """Down from the label and up to classes in proportion to cost times probability."""
    logits = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    costs = torch.tensor([[0.0, 1.0, 0.1], [1.0, 0.0, 0.5], [0.1, 0.5, 0.0]])
    (gradient,) = torch.autograd.grad(log_cost(logits, torch.tensor([0]), costs).sum(), logits)
    rest = 2 * math.exp(-gap) / (1 + 2 * math.exp(-gap))
    right = torch.tensor([rest - 1, 10 / 11 - rest / 2, 1 / 11 - rest / 2])
    assert torch.allclose(gradient[0], right, atol=1e-6)


def test_a_class_whose_errors_cost_nothing_pulls_nowhere() -> None:
    costs = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    logits = torch.randn(1, 3, requires_grad=True)
    value = log_cost(logits, torch.tensor([0]), costs)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_metric_the_search_is_pgds(norm: str) -> None:
    """1 - p_y and cross-entropy grow along one direction, so both take the same steps."""
    x, y = conv_points()
    threat = ThreatModel(norm, {"linf": 0.1, "l2": 1.0}[norm])  # type: ignore[arg-type]
    ours, _ = propose(WPGD(steps=5, random_start=False), conv_model(), x, y, threat)
    plain, _ = propose(PGD(steps=5, random_start=False), conv_model(), x, y, threat)
    assert torch.allclose(ours, plain, atol=1e-5)


def metric_file(path: Path, classes: tuple[str, ...], costs: Any) -> str:
    LabelMetric(classes, np.asarray(costs, dtype=float)).write(path / "costs.csv")
    return str(path / "costs.csv")


def test_a_metric_is_read_by_the_names_of_the_classes(tmp_path: Path) -> None:
    """Training knows the names, and puts a file in another order right; else order is all."""
    order = ("3", "1", "2", "0")
    costs = [[0, 4, 2, 1], [4, 0, 3, 1], [2, 3, 0, 2], [1, 1, 2, 0]]
    file = metric_file(tmp_path, order, costs)
    logits, y = torch.zeros(1, 4), torch.tensor([3])
    loss = Wasserstein(metric=file)
    assert loss(logits, y).item() == pytest.approx((1 + 1 + 2) / 4 / 4)  # the file's last row
    loss = Wasserstein(metric=file)
    loss.prepare(BenchKit())
    assert loss(logits, y).item() == pytest.approx((4 + 2 + 1) / 4 / 4)  # the row of class "3"
    assert Wasserstein(metric=file, power=2)(logits, y).item() == pytest.approx(6 / 16 / 4)


def test_what_does_not_fit_is_said_in_a_line(tmp_path: Path) -> None:
    file = metric_file(tmp_path, ("a", "b"), [[0, 1], [1, 0]])
    with pytest.raises(BadValueError, match="is of 2 classes, the model has 4"):
        Wasserstein(metric=file)(torch.zeros(1, 4), torch.tensor([0]))
    with pytest.raises(RobustkitError, match=r"costs\.csv|class"):
        Wasserstein(metric=file).prepare(BenchKit())
    with pytest.raises(RobustkitError, match="wordnet-cifar11"):
        Wasserstein(metric="wordnet-cifar11")(torch.zeros(1, 4), torch.tensor([0]))


def test_training_moves_the_points_as_its_attack_does() -> None:
    trainer: Any = WassersteinTraining()
    assert trainer.attack.dump()["steps"] == 8
    for _, part in trainer.tree():
        part.prepare(BenchKit())
    batch, model = batch_of(*conv_points()), conv_model()
    there = trainer.adversary(model, batch, Clock())
    before, after = (model(b.x).softmax(1).gather(1, batch.y[:, None]) for b in (batch, there))
    assert (after < before).all()
    assert (trainer.objective(model, there, Clock()).loss > 0).all()


def test_a_point_that_is_wrong_goes_on_to_what_costs_more(tmp_path: Path) -> None:
    """From 0.5 on, a line leads through the cheap class, at 0.55, to the dear one, at 0.65."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 0.0], [20.0, 0.0], [40.0, 0.0]]))
        model[1].bias.copy_(torch.tensor([0.0, -11.0, -24.0]))
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    file = metric_file(tmp_path, ("0", "1", "2"), [[0, 1e-3, 1], [1e-3, 0, 1], [1, 1, 0]])
    threat = ThreatModel("linf", 0.2)
    found = {}
    for metric in ("", file):
        attack = WPGD(loss={"name": "wasserstein", "metric": metric}, random_start=False)  # type: ignore[arg-type]
        x_adv, _ = propose(attack, model, x, y, threat)
        found[metric] = int(model(x_adv).argmax())
    assert found == {"": 1, file: 2}
