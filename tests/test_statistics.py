"""Intervals and paired comparisons against published and hand-computed values."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustkit.analysis.statistics import compare, mcnemar, rate, robust_at, worst_case
from robustkit.arrays import EvalPoints
from robustkit.errors import BadValueError


def points(
    robust: list[bool], *, sizes: list[float] | None = None, broken_by: list[int] | None = None
) -> EvalPoints:
    n = len(robust)
    return EvalPoints(
        ids=np.arange(n),
        labels=np.zeros(n, np.int64),
        clean_predictions=np.zeros(n, np.int64),
        adversarial_predictions=np.zeros(n, np.int64),
        robust=np.array(robust),
        broken_by=np.array(broken_by or [-1 if r else 0 for r in robust]),
        sizes=np.array(sizes or [math.nan] * n),
        forwards=np.zeros(n),
        backwards=np.zeros(n),
    )


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    # Newcombe 1998, table I, method 3 (score without continuity correction).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_newcombes_table(count: int, n: int, low: float, high: float) -> None:
    result = rate(count, n)
    assert (result.low, result.high) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_mirrors(case: tuple[int, int]) -> None:
    count, n = case
    one, other = rate(count, n), rate(n - count, n)
    assert 0 <= one.low <= one.value <= one.high <= 1
    assert one.low == pytest.approx(1 - other.high, abs=1e-12)


def test_no_points_say_nothing() -> None:
    assert (rate(0, 0).low, rate(0, 0).high) == (0, 1)


@pytest.mark.parametrize(("count", "n"), [(3, 2), (-1, 2)])
def test_a_share_beyond_all_is_refused(count: int, n: int) -> None:
    with pytest.raises(BadValueError, match=f"{count} of {n}"):
        rate(count, n)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (1, 8, 2 * 10 / 512), (10, 2, 0.03857)],
)
def test_mcnemar_is_the_binomial_tail(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, abs=1e-5)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_of_many_points_does_not_overflow() -> None:
    assert mcnemar(4000, 6000) < 1e-80


def test_comparison_counts_each_side() -> None:
    result = compare(points([True, True, False, True]), points([True, False, False, False]))
    assert (result.only_first, result.only_second, result.p_value) == (2, 0, 0.5)


def test_worst_case_is_robust_in_all() -> None:
    result = worst_case([points([True, True, False]), points([True, False, True])])
    assert (result.count, result.n) == (1, 3)


def test_different_points_are_refused() -> None:
    with pytest.raises(BadValueError, match="different points"):
        worst_case([points([True]), points([True, False])])
    with pytest.raises(BadValueError, match="no evaluation"):
        worst_case([])


def test_every_eps_follows_from_the_smallest_sizes() -> None:
    smallest = points(
        [True, False, False, False, False],
        sizes=[math.nan, 0.1, 0.3, math.nan, math.nan],
        broken_by=[-1, 0, 0, -2, -3],
    )
    assert [robust_at(smallest, eps).count for eps in (0, 0.1, 0.2, 0.3, math.inf)] == [
        3,
        2,
        2,
        1,
        1,
    ]


def test_statistics_need_neither_torch_nor_numpy() -> None:
    code = "import sys, robustkit.analysis.statistics as s; s.rate(1, 2); "
    code += "print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
