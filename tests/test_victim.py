from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustkit.engine.victim import SMALLEST, CountingVictim, frozen


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def test_passes_are_counted_by_point() -> None:
    victim = CountingVictim(network().eval(), 5, torch.device("cpu"), drop=True)
    x = torch.rand(5, 1, 8, 8, requires_grad=True)
    victim(x, torch.arange(5)).sum().backward()
    rows = torch.tensor([1, 4])
    with torch.no_grad():
        victim(x[rows], rows)
    assert victim.forwards.tolist() == [1, 2, 1, 1, 2]
    assert victim.backwards.tolist() == [1, 1, 1, 1, 1]
    assert not victim.spread


@pytest.mark.parametrize("chunk", [None, 2])
def test_backward_passes_that_are_mapped_over_count_each(chunk: int | None) -> None:
    victim = CountingVictim(network().eval(), 5, torch.device("cpu"), drop=True)
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    logits = victim(x, torch.tensor([0, 2, 3]))

    def pull(along: Tensor) -> Tensor:
        return torch.autograd.grad(logits, x, along, retain_graph=True)[0]

    rows = torch.eye(3).unsqueeze(1).expand(3, 3, 3)
    mapped = torch.func.vmap(pull, chunk_size=chunk)(rows)
    assert victim.forwards.tolist() == [1, 0, 1, 1, 0]
    assert victim.backwards.tolist() == [3, 0, 3, 3, 0]
    assert torch.allclose(mapped[1], pull(rows[1]), atol=1e-6)


def test_unnamed_rows_are_spread_and_marked() -> None:
    victim = CountingVictim(network().eval(), 4, torch.device("cpu"), drop=True)
    victim(torch.rand(2, 1, 8, 8))
    assert victim.forwards.tolist() == [0.5] * 4
    assert victim.spread


@pytest.mark.parametrize("n", [1, 2, SMALLEST - 1])
def test_small_calls_give_what_large_ones_give(n: int) -> None:
    victim = CountingVictim(network().eval(), 64, torch.device("cpu"), drop=True)
    x = torch.rand(64, 1, 8, 8)
    assert torch.equal(victim(x)[:n], victim(x[:n]))


def test_gradients_ignore_the_padding() -> None:
    victim = CountingVictim(network().eval(), 1, torch.device("cpu"), drop=True)
    x = torch.rand(1, 1, 8, 8, requires_grad=True)
    (padded,) = torch.autograd.grad(victim(x).logsumexp(1).sum(), x)
    (plain,) = torch.autograd.grad(victim.model(x).logsumexp(1).sum(), x)
    assert torch.allclose(padded, plain, atol=1e-6)


def test_done_means_wrong_by_more_than_rounding() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0 + 1e-6], [1.0, 1.0]])
    y = torch.zeros(4, dtype=torch.long)
    evaluating = CountingVictim(nn.Identity(), 4, torch.device("cpu"), drop=True)
    assert evaluating.done(logits, y).tolist() == [False, True, False, False]
    training = CountingVictim(nn.Identity(), 4, torch.device("cpu"), drop=False)
    assert not training.done(logits, y).any()


@pytest.mark.parametrize("training", [False, True])
def test_a_frozen_model_comes_back_as_it_was(training: bool) -> None:
    model = network()
    model[1].eval()
    model[3].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), frozen(model, training=training) as lent:
        assert all(m.training is training for m in lent.modules())
        assert not any(p.requires_grad for p in lent.parameters())
        lent(torch.rand(4, 1, 8, 8))
        raise RuntimeError("inside")
    assert [m.training for m in model] == [True, False, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
