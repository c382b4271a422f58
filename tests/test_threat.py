from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustkit.engine.rng import PointRng
from robustkit.errors import BadValueError, RobustkitError
from robustkit.threat import Norm, ThreatModel, format_eps, parse_eps, parse_norm

NORMS = ("linf", "l2", "l1")


def images(seed: int, n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, 3, 3, generator=generator, dtype=torch.float64)
    return x, x + 3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("text", "eps"), [("8/255", 8 / 255), ("0.3", 0.3), (0.5, 0.5), ("inf", math.inf), ("0", 0.0)]
)
def test_eps_is_read(text: str | float, eps: float) -> None:
    assert parse_eps(text) == pytest.approx(eps)


@pytest.mark.parametrize("text", ["", "-1", "8/0", "eight", "nan", "1/2/3"])
def test_bad_eps_is_one_line_with_the_value(text: str) -> None:
    with pytest.raises(BadValueError, match=f"eps '{text}'") as error:
        parse_eps(text)
    assert "\n" not in str(error.value)


@given(st.integers(1, 254))
def test_eps_of_255_reads_back(n: int) -> None:
    assert parse_eps(format_eps(n / 255)) == pytest.approx(n / 255, rel=1e-5)


def test_norm_names() -> None:
    assert parse_norm("Linf") == "linf"
    assert parse_norm("2") == "l2"
    with pytest.raises(RobustkitError, match="did you mean 'linf'"):
        parse_norm("linff")


def test_empty_box_is_refused() -> None:
    with pytest.raises(BadValueError, match="is empty"):
        ThreatModel("linf", 0.1, low=1, high=0)


def test_sizes_by_hand() -> None:
    delta = torch.tensor([[[[3.0, -4.0]]]])
    sizes = {norm: ThreatModel(norm, 1).size(delta).item() for norm in NORMS}
    assert sizes == {"linf": 4, "l2": 5, "l1": 7}
    duals = {norm: ThreatModel(norm, 1).dual_size(delta).item() for norm in NORMS}
    assert duals == {"linf": 7, "l2": 5, "l1": 4}


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_steepest_gains_the_dual_size(norm: str, seed: int) -> None:
    threat = ThreatModel(norm, 1)
    _, grad = images(seed)
    step = threat.steepest(grad)
    assert torch.allclose(threat.size(step), torch.ones(3, dtype=step.dtype))
    assert torch.allclose((step * grad).flatten(1).sum(1), threat.dual_size(grad))


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0, 8))
@settings(max_examples=40, deadline=None)
def test_projection_lands_in_ball_and_box_and_stays(norm: str, seed: int, eps: float) -> None:
    threat = ThreatModel(norm, eps)
    x, far = images(seed)
    near = threat.project(far, x)
    assert near.min() >= 0
    assert near.max() <= 1
    assert (threat.size(near - x) <= eps + 1e-9).all()
    assert torch.allclose(threat.project(near, x), near, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@given(seed=st.integers(0, 1000), eps=st.floats(0.01, 6))
@settings(max_examples=40, deadline=None)
def test_projection_is_the_nearest_point(norm: str, seed: int, eps: float) -> None:
    """Of a convex set, z is nearest to v iff (v - z)·(w - z) <= 0 for every w in it."""
    threat = ThreatModel(norm, eps)
    x, far = images(seed)
    near = threat.project(far, x)
    for other in range(5):
        inside = threat.project(images(seed + other + 1)[1], x)
        assert (((far - near) * (inside - near)).flatten(1).sum(1) <= 1e-6).all()


@pytest.mark.parametrize(
    ("norm", "eps", "box", "text"),
    [
        ("l2", 1.5, (0, 1), "l2 1.5"),
        ("l2", 1.5, (-math.inf, math.inf), "l2 1.5, no box"),
        ("linf", 0.1, (0, math.inf), "linf 0.1, box [0, inf]"),
        ("none", math.inf, (-math.inf, math.inf), "none, no box"),
    ],
)
def test_threats_in_words(norm: Norm, eps: float, box: tuple[float, float], text: str) -> None:
    assert str(ThreatModel(norm, eps, *box)) == text


def test_open_box_and_no_ball() -> None:
    x, far = images(0)
    assert torch.equal(ThreatModel("linf", math.inf, -math.inf, math.inf).project(far, x), far)
    assert torch.equal(ThreatModel("none", 0.1).project(far, x), far.clamp(0, 1))


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_inside_and_depends_on_the_point_alone(norm: str) -> None:
    threat = ThreatModel(norm, 0.5)
    x = torch.rand(6, 1, 4, 4)
    rng = PointRng(0, "test", torch.arange(6))
    start = threat.random_start(x, rng, at="start")
    assert (threat.size(start - x) <= 0.5 + 1e-6).all()
    assert not torch.equal(start, x)
    rows = torch.tensor([4, 1])
    assert torch.equal(threat.random_start(x[rows], rng[rows], at="start"), start[rows])


OPEN = {"low": -math.inf, "high": math.inf}


@pytest.mark.parametrize(
    ("norm", "step"),
    [("linf", [0.2, -0.1, 0.2, 0]), ("l2", [0.12, -0.1, 0.16, 0]), ("l1", [0, -0.1, 0.1, 0])],
)
def test_the_farthest_point_in_the_box_by_hand(norm: str, step: list[float]) -> None:
    """Slopes 3, -9, 4, 0 from 0.4, 0.1, 0.5, 0.9: the second pixel meets the box first."""
    x = torch.tensor([0.4, 0.1, 0.5, 0.9], dtype=torch.float64).view(1, 1, 2, 2)
    grad = torch.tensor([3.0, -9.0, 4.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    # l2: of the size's square, 0.05, the wall takes 0.01; 0.2 along (3, 4) is left.
    size = math.sqrt(0.05) if norm == "l2" else 0.2
    found = ThreatModel(norm, size).farthest(grad, x) - x  # type: ignore[arg-type]
    assert found.flatten().tolist() == pytest.approx(step)


def test_a_direction_grows_until_the_box_leaves_its_size() -> None:
    """Along (1, -1, 1, 0) from 0.4, 0.1, 0.5, 0.9 the second pixel can only go 0.1."""
    x = torch.tensor([0.4, 0.1, 0.5, 0.9], dtype=torch.float64).view(1, 1, 2, 2)
    direction = torch.tensor([1.0, -1.0, 1.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    for norm, size in (("linf", 0.3), ("l2", math.sqrt(0.19)), ("l1", 0.7)):
        found = ThreatModel(norm, size).along(direction, x) - x  # type: ignore[arg-type]
        assert found.flatten().tolist() == pytest.approx([0.3, -0.1, 0.3, 0])
        everything = ThreatModel(norm, 9).along(direction, x)  # type: ignore[arg-type]
        assert everything.flatten().tolist() == [1, 0, 1, 0.9]


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_box_the_farthest_point_is_a_step_along_the_steepest_direction(norm: str) -> None:
    x, other = images(3)
    threat = ThreatModel(norm, 0.7, **OPEN)  # type: ignore[arg-type]
    grad = (other - x) * 1e-30
    steepest = threat.steepest(grad * 1e30)
    assert torch.allclose(threat.farthest(grad, x), x + 0.7 * steepest, atol=1e-12)
    sizes = torch.tensor([0.1, 0.0, 2.0])
    found = threat.size(threat.farthest(grad, x, sizes) - x)
    assert torch.allclose(found.float(), sizes, atol=1e-6)


@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.floats(0.01, 6))
@settings(max_examples=60, deadline=None)
def test_no_point_of_ball_and_box_is_farther(seed: int, norm: str, eps: float) -> None:
    x, other = images(seed)
    threat = ThreatModel(norm, eps)  # type: ignore[arg-type]
    grad = other - x
    far = threat.farthest(grad, x)
    assert far.min() >= 0
    assert far.max() <= 1
    assert (threat.size(far - x) <= eps + 1e-9).all()
    gain = ((far - x) * grad).sum((1, 2, 3))
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.1, 1.0, 10.0):
        noise = scale * eps * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for start in (far + noise, x + noise, x + scale * eps * grad):
            rival = threat.project(start, x)
            assert (((rival - x) * grad).sum((1, 2, 3)) <= gain + 1e-7).all()
