from __future__ import annotations

import torch

from robustkit.engine.rng import PointRng


def rng(seed: int = 0, component: str = "pgd", n: int = 2000) -> PointRng:
    return PointRng(seed, component, torch.arange(n))


def test_draws_follow_their_distribution() -> None:
    uniform = rng().uniform((64,)).double()
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.var() - 1 / 12) < 0.001
    assert uniform.min() >= 0
    assert uniform.max() < 1
    normal = rng().normal((63,)).double()
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs((normal**4).mean() - 3) < 0.1
    counts = torch.bincount(rng().choice(7, (64,)).flatten(), minlength=7).double()
    expected = 2000 * 64 / 7
    assert ((counts - expected) ** 2 / expected).sum() < 25


def test_neighbours_are_uncorrelated() -> None:
    draws = rng(n=200).uniform((500,)).double()
    off_diagonal = torch.corrcoef(draws) - torch.eye(200)
    assert off_diagonal.abs().max() < 0.25
    assert off_diagonal.mean().abs() < 0.002


def test_a_draw_is_a_function_of_seed_component_point_and_place() -> None:
    base = rng().uniform((5,), at=("start", 0))
    assert torch.equal(base, rng().uniform((5,), at=("start", 0)))
    rows = torch.tensor([7, 3, 3])
    assert torch.equal(rng()[rows].uniform((5,), at=("start", 0)), base[rows])
    for other in (rng(seed=1), rng(component="fgsm")):
        assert not torch.equal(other.uniform((5,), at=("start", 0)), base)
    assert not torch.equal(rng().uniform((5,), at=("start", 1)), base)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = rng().normal((3,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(rng().normal((3,)), first)


def test_shared_draws_are_the_same_for_any_points() -> None:
    everyone, few = rng().shared, rng()[torch.tensor([5])].shared
    assert everyone.uniform((2, 3), at=1).shape == (2, 3)
    assert torch.equal(everyone.uniform((2, 3), at=1), few.uniform((2, 3), at=1))
    assert everyone.choice(9, at=2).shape == ()


def test_known_values_do_not_drift() -> None:
    """A change here changes every published number: raise the schema if it is meant."""
    one = PointRng(3, "square", torch.tensor([41]))
    assert one.choice(1000, (4,), at=("x", 1)).tolist() == [[902, 422, 331, 520]]
