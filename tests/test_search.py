"""Several searches of one point at once."""

from __future__ import annotations

import pytest
import torch
from attack_models import attacked
from torch import Tensor, nn

from robustkit.attacks.apgd import APGDCE, APGDTargeted
from robustkit.attacks.deepfool import DeepFool
from robustkit.attacks.fab import FAB, FABTargeted
from robustkit.attacks.fmn import FMN
from robustkit.attacks.pgd import PGD
from robustkit.attacks.search import Search, Together
from robustkit.engine import victim as engine
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import SMALLEST, CountingVictim, frozen
from robustkit.interfaces import Attack
from robustkit.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)
RIGHT, WRONG = [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]


def searches() -> tuple[Search, Together]:
    """Two points of class 0; the second one searched for classes 1 and 2."""
    victim = CountingVictim(nn.Flatten(), 2, torch.device("cpu"), drop=True)
    x, y = torch.zeros(2, 1, 1, 3), torch.zeros(2, dtype=torch.long)
    whole = Search(PGD(), victim, x, y, THREAT)
    return whole, Together(PGD(), whole, torch.tensor([1]), torch.tensor([[1, 2]]), THREAT)


def test_a_pass_counts_for_its_point_as_often_as_it_is_asked() -> None:
    victim = CountingVictim(nn.Flatten(), 2, torch.device("cpu"), drop=True)
    x = torch.zeros(3, 1, 1, 3, requires_grad=True)
    victim(x, torch.tensor([0, 0, 1])).sum().backward()
    assert victim.forwards.tolist() == victim.backwards.tolist() == [2, 1]


def test_where_one_search_of_a_point_ends_all_do() -> None:
    _, together = searches()
    proposals = torch.full((2, 1, 1, 3), 0.1)
    left = together.settle(proposals, torch.tensor([RIGHT, WRONG]), torch.tensor([0, 1]))
    assert left.tolist() == [] and together.rows.tolist() == []


def test_what_ended_the_searches_is_proposed_though_another_had_the_higher_loss() -> None:
    whole, together = searches()
    proposals = torch.tensor([0.05, 0.1]).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    wrong = torch.tensor([True, True])
    together.offer(proposals, torch.tensor([5.0, 1.0]), wrong, torch.tensor([0, 1]))
    together.settle(proposals, torch.tensor([RIGHT, WRONG]), torch.tensor([0, 1]))
    together.conclude()
    assert torch.equal(whole.x_adv[1], proposals[1]) and whole.rows.tolist() == [0]
    assert not whole.x_adv[0].any()


def test_without_an_end_the_strongest_proposal_is_kept() -> None:
    whole, together = searches()
    proposals = torch.tensor([0.05, 0.1]).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    none = torch.tensor([False, False])
    together.offer(proposals, torch.tensor([5.0, 1.0]), none, torch.tensor([0, 1]))
    together.conclude()
    assert torch.equal(whole.x_adv[1], proposals[0]) and whole.rows.tolist() == [0, 1]


class Largest(nn.Module):
    """A network that remembers how many images it was shown at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.most = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh()), 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("whole", [False, True])
def test_more_points_than_fill_a_pass_are_asked_in_even_parts(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of all takes memory; in training a batch is a batch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 8
    found = []
    for values, most in ((20 * 64, 20), (9 * 64, 20 if whole else 7)):
        monkeypatch.setattr(engine, "VALUES", values)
        model = Largest()
        with frozen(model):
            victim = CountingVictim(model, 20, torch.device("cpu"), drop=False, whole=whole)
            rng = PointRng(0, "apgd-ce", torch.arange(20))
            found.append(APGDCE(steps=5).perturb(victim, x, y, ThreatModel("linf", 0.1), rng))
        assert model.most == max(most, SMALLEST)
        assert victim.forwards.tolist() == victim.backwards.tolist() == [6] * 20
    assert torch.equal(*found)


class Blind(nn.Module):
    """A linear model out of the gradient's sight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.detach())
        return logits


@pytest.mark.parametrize(
    "attack",
    [PGD(), APGDCE(), APGDTargeted(), FAB(steps=9), FABTargeted(steps=9), FMN(), DeepFool()],
    ids=lambda attack: attack.name,
)
def test_where_no_gradient_reaches_the_image_a_search_ends_without(attack: Attack) -> None:
    """So that AutoAttack gets to the part that needs none."""
    model, x, threat = Blind(), torch.rand(9, 1, 8, 8), ThreatModel("linf", 0.1)
    x_adv, victim = attacked(attack, model, x, model(x).argmax(1), threat)
    assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()
    assert victim.forwards.min() > 0 and not victim.backwards.any()
