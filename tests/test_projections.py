"""The step to a plane inside a box, against independent solvers."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from robustkit.attacks.projections import step_to_plane
from robustkit.threat import Norm, ThreatModel

unit = st.floats(0, 1)
slope = st.one_of(st.just(0.0), st.floats(-3, 3).filter(lambda v: abs(v) > 1e-3))
problems = st.integers(1, 4).flatmap(
    lambda size: st.tuples(
        st.lists(unit, min_size=size, max_size=size),
        st.lists(slope, min_size=size, max_size=size),
        st.floats(-3, 3),
    )
)
Problem = tuple[list[float], list[float], float]

PLAIN = {"presolve": False}
"""The solver's presolve takes problems with bounds of 1e-8, such as the example, for infeasible."""


def step(problem: Problem, threat: ThreatModel) -> np.ndarray:
    x, w, value = (torch.tensor([part], dtype=torch.float64) for part in problem)
    return step_to_plane(x, w, value, threat)[0].numpy()


def reachable(problem: Problem) -> float:
    """Give the most that a linear function can move towards 0 inside the box."""
    x, w, value = np.array(problem[0]), np.array(problem[1]), problem[2]
    down = np.where(np.sign(value or 1.0) * w > 0, x, 1 - x)
    return float(np.abs(w) @ down)


def least_linf(problem: Problem) -> float:
    """Solve the linear program: the least t with <w, d> = -value and |d| <= t in the box."""
    x, w, value = problem
    n = len(x)
    bounds = [(-v, 1 - v) for v in x] + [(0, None)]
    below = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    solved = linprog(
        [0] * n + [1],
        A_ub=below,
        b_ub=np.zeros(2 * n),
        A_eq=[[*w, 0]],
        b_eq=[-value],
        bounds=bounds,
        options=PLAIN,
    )
    assert solved.success
    return float(solved.fun)


def least_l1(problem: Problem) -> float:
    """Solve the linear program: the least sum of d+ + d- with <w, d+ - d-> = -value in the box."""
    x, w, value = problem
    bounds = [(0, 1 - v) for v in x] + [(0, v) for v in x]
    both = [*w, *(-v for v in w)]
    solved = linprog([1] * len(both), A_eq=[both], b_eq=[-value], bounds=bounds, options=PLAIN)
    assert solved.success
    return float(solved.fun)


def least_l2(problem: Problem) -> float:
    """Try every choice of coordinates at a wall; the others share the rest in proportion to w."""
    x, w, value = np.array(problem[0]), np.array(problem[1]), problem[2]
    best = math.inf
    for choice in product(("free", "low", "high"), repeat=len(x)):
        free = np.array([c == "free" for c in choice])
        d = np.select([[c == "low" for c in choice], [c == "high" for c in choice]], [-x, 1 - x])
        rest = -value - w[~free] @ d[~free]
        square = w[free] @ w[free]
        if square == 0 and abs(rest) > 1e-9:
            continue
        d[free] = rest * w[free] / square if square else 0
        if ((x + d) >= -1e-9).all() and ((x + d) <= 1 + 1e-9).all():
            best = min(best, float(np.linalg.norm(d)))
    return best


LEAST = {"linf": least_linf, "l2": least_l2, "l1": least_l1}


@settings(max_examples=150, deadline=None)
@given(problems, st.sampled_from(sorted(LEAST)))
@example(([2**-24, 0.0, 0.0, 0.5], [2.0, 0.0, 0.0, 2.0], 0.0), "l1")
def test_the_step_is_the_smallest_one_or_ends_in_the_corner(problem: Problem, norm: Norm) -> None:
    threat = ThreatModel(norm, 1.0)
    x, w, value = np.array(problem[0]), np.array(problem[1]), problem[2]
    d = step(problem, threat)
    assert (x + d >= -1e-9).all() and (x + d <= 1 + 1e-9).all()
    most = reachable(problem)
    if abs(value) < most - 1e-6:
        assert w @ d == pytest.approx(-value, abs=1e-7)
        size = np.linalg.norm(d, {"linf": np.inf, "l2": 2, "l1": 1}[norm])
        assert size == pytest.approx(LEAST[norm](problem), abs=1e-6)
    elif abs(value) > most + 1e-6:
        assert abs(w @ d) == pytest.approx(most, abs=1e-7)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_without_a_box_the_step_is_the_closed_form(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 7, 20, generator=generator)
    value = torch.randn(7, generator=generator)
    threat = ThreatModel(norm, 1.0, -math.inf, math.inf)
    d = step_to_plane(x, w, value, threat)
    assert torch.allclose((w * d).sum(1), -value, atol=1e-5)
    assert torch.allclose(threat.size(d), value.abs() / threat.dual_size(w), rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_large_images_on_the_border_of_the_box(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(16, 3072, generator=generator) * 3 - 1).clamp(0, 1)
    w = torch.randn(16, 3072, generator=generator)
    value = 20 * torch.rand(16, generator=generator)
    d = step_to_plane(x, w, value, ThreatModel(norm, 1.0))
    assert torch.allclose((w * d).sum(1), -value, rtol=1e-4)
    assert ((x + d) >= -1e-6).all() and ((x + d) <= 1 + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_flat_function_and_a_point_on_the_plane_give_no_step(norm: Norm) -> None:
    x = torch.full((2, 3), 0.5)
    w = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.0]])
    d = step_to_plane(x, w, torch.tensor([1.0, 0.0]), ThreatModel(norm, 1.0))
    assert torch.equal(d, torch.zeros_like(d))
