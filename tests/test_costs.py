"""What errors cost, against hand-computed values, exact intervals and simulated points."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import confusion, write_eval, write_run
from scipy.stats import beta

from robustkit.analysis import costs
from robustkit.analysis.bounded import bounded_mean, sum_of_means
from robustkit.analysis.recorded import (
    Measured,
    Named,
    cost_record,
    digest_of,
    directions_record,
    gap_record,
    score_record,
)
from robustkit.analysis.records import CostRecord, DirectionsRecord, GapRecord, ScoreRecord
from robustkit.arrays import EvalPoints
from robustkit.errors import BadValueError, RobustkitError
from robustkit.metric import LabelMetric
from robustkit.records import RunFolder

COSTS = np.array([[0.0, 1.0, 0.2], [1.0, 0.0, 0.5], [0.2, 0.5, 0.0]])
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
CLEAN = np.array([0, 0, 0, 2, 1, 1, 2, 2, 2, 1])
ATTACKED = np.array([0, 1, 1, 2, 1, 2, 0, 0, 2, 1])


def points(attacked: np.ndarray = ATTACKED, clean: np.ndarray = CLEAN) -> EvalPoints:
    n, right = len(LABELS), clean == LABELS
    broken = right & (attacked != LABELS)
    return EvalPoints(
        ids=np.arange(n),
        labels=LABELS,
        clean_predictions=clean,
        adversarial_predictions=attacked,
        robust=right & ~broken,
        broken_by=np.where(broken, 0, np.where(right, -1, -2)),
        sizes=np.where(broken, 0.1, math.nan),
        forwards=np.zeros(n),
        backwards=np.zeros(n),
    )


def test_rows_are_shares_and_a_class_without_points_has_none() -> None:
    shares = costs.normalised([[3, 1, 0], [0, 0, 0], [1, 1, 2]])
    assert shares[0].tolist() == [0.75, 0.25, 0]
    assert np.isnan(shares[1]).all()
    assert shares[2].tolist() == [0.25, 0.25, 0.5]


def test_the_accuracy_gap_is_that_of_shares() -> None:
    gap = costs.accuracy_gap([[3, 1], [2, 2]], [[10, 0], [2, 8]])
    np.testing.assert_allclose(gap, [[0.25, 0.25], [0.3, 0.3]])


def test_the_diagonal_changes_the_correlation_of_gap_and_metric() -> None:
    gap = np.array([[0.5, 0.1, 0.4], [0.1, 0.3, 0.2], [0.4, 0.2, 0.6]])
    found = costs.correlation(gap, COSTS)
    # Off the diagonal by hand: gap .1 .4 .2 and cost 1 .2 .5, each twice.
    x, y = [-2 / 15, 1 / 6, -1 / 30], [13 / 30, -11 / 30, -1 / 15]
    by_hand = sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(
        sum(a * a for a in x) * sum(b * b for b in y)
    )
    assert found.without_diagonal == pytest.approx(by_hand)
    flat = [gap.ravel(), COSTS.ravel()]
    assert found.with_diagonal == pytest.approx(np.corrcoef(flat)[0, 1])
    assert found.with_diagonal != pytest.approx(found.without_diagonal)


def test_a_constant_matrix_has_no_correlation_and_empty_classes_do_not_count() -> None:
    zero_one = 1 - np.eye(3)
    gap = np.array([[0.5, 0.1, 0.4], [0.1, 0.3, 0.2], [0.4, 0.2, 0.6]])
    found = costs.correlation(gap, zero_one)
    assert found.without_diagonal is None
    assert found.with_diagonal is not None
    gap[1] = np.nan
    rows = [0, 2]
    assert costs.correlation(gap, COSTS).with_diagonal == pytest.approx(
        np.corrcoef(gap[rows].ravel(), COSTS[rows].ravel())[0, 1]
    )


def test_the_weighted_score_is_a_sum_over_rows() -> None:
    matrix = confusion(LABELS, ATTACKED, 3)
    # Class 0: of 4, two as 1 (1.0) and one as 2 (0.2); class 1: of 2, one as 2 (0.5); class 2: of
    # 4, two as 0 (0.2) and one as 1 (0.5).
    by_hand = (2 * 1.0 + 0.2) / 4 + 0.5 / 2 + (2 * 0.2 + 0.5) / 4
    assert costs.weighted_score(matrix, COSTS) == pytest.approx(by_hand)
    found = costs.score(LABELS, ATTACKED, COSTS)
    assert found.value == pytest.approx(by_hand)
    assert found.low < by_hand < found.high
    assert costs.weighted_score([[0, 0], [1, 3]], [[0, 1], [1, 0]]) == 0.25


def test_the_expected_cost_is_a_mean_over_points() -> None:
    found = costs.expected_cost(LABELS, ATTACKED, COSTS)
    assert found.value == pytest.approx((2 * 1 + 0.2 + 0.5 + 2 * 0.2 + 0.5) / 10)
    assert found.n == 10
    assert costs.expected_cost(LABELS, LABELS, COSTS).value == 0


@given(st.data())
def test_under_the_0_1_metric_cost_and_score_are_errors(data: st.DataObject) -> None:
    k, n = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 30))
    draws = st.lists(st.integers(0, k - 1), min_size=n, max_size=n)
    labels, predictions = np.array(data.draw(draws)), np.array(data.draw(draws))
    zero_one = 1 - np.eye(k)
    cost = costs.expected_cost(labels, predictions, zero_one)
    assert cost.value == pytest.approx(np.mean(labels != predictions))
    assert 0 <= cost.low <= cost.value <= cost.high <= 1
    matrix = confusion(labels, predictions, k)
    by_class = sum((predictions != labels)[labels == c].mean() for c in set(labels.tolist()))
    assert costs.weighted_score(matrix, zero_one) == pytest.approx(by_class)
    found = costs.score(labels, predictions, zero_one)
    assert found.value == pytest.approx(by_class)
    assert found.low <= found.value <= found.high


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 40))
def test_the_score_of_points_is_that_of_their_confusion_matrix(seed: int, k: int, n: int) -> None:
    pick = np.random.default_rng(seed)
    labels, first, second = pick.integers(0, k, (3, n))
    metric = pick.random((k, k)) * (1 - np.eye(k))
    for predictions in (first, second):
        assert costs.score(labels, predictions, metric).value == pytest.approx(
            costs.weighted_score(confusion(labels, predictions, k), metric)
        )
    ours, theirs = (costs.score(labels, p, metric).value for p in (first, second))
    found = costs.score_difference(labels, first, second, metric)
    assert found.value == pytest.approx(ours - theirs)
    assert found.low <= found.value <= found.high


def test_what_both_get_wrong_alike_does_not_widen_a_difference() -> None:
    labels = np.repeat([0, 1], 200)
    wrong = np.where(np.arange(400) % 2, 1 - labels, labels)
    other = wrong.copy()
    other[:4] = labels[:4]
    zero_one = 1 - np.eye(2)
    paired = costs.score_difference(labels, wrong, other, zero_one)
    alone = costs.score(labels, wrong, zero_one)
    assert paired.value == pytest.approx(2 / 200)
    assert paired.high - paired.low < 0.7 * (alone.high - alone.low)


@pytest.mark.parametrize(("n", "k"), [(20, 0), (20, 20), (50, 3), (1, 1), (500, 41), (9000, 2)])
def test_the_interval_of_zeros_and_ones_is_clopper_and_pearsons(n: int, k: int) -> None:
    found = bounded_mean(np.repeat([0.0, 1.0], [n - k, k]))
    low = beta.ppf(0.025, k, n - k + 1) if k else 0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1
    assert found.value == pytest.approx(k / n)
    assert found.low == pytest.approx(low, rel=0.03, abs=0.002 if k else 1e-12)
    assert found.high == pytest.approx(high, rel=0.03)


def test_no_point_says_nothing() -> None:
    found = bounded_mean(np.zeros(0))
    assert (found.n, found.low, found.high) == (0, 0, 1)


@given(st.lists(st.integers(0, 64), min_size=1, max_size=40))
def test_the_interval_holds_the_mean_mirrors_and_knows_no_order(steps: list[int]) -> None:
    values = np.array(steps) / 64
    found = bounded_mean(values)
    assert 0 <= found.low <= found.value <= found.high <= 1
    again = bounded_mean(np.sort(values))
    assert (again.low, again.high) == (found.low, found.high)
    mirrored = bounded_mean(1 - values)
    assert mirrored.low == pytest.approx(1 - found.high, abs=0.03)
    doubled = bounded_mean(2 * values - 1, -1, 1)
    assert doubled.low == pytest.approx(2 * found.low - 1, abs=1e-9)


LEVELS = np.array([0.0, 0.2, 0.5, 1.0])


@pytest.mark.parametrize("shares", [(0.97, 0.02, 0.005, 0.005), (0.6, 0.3, 0.05, 0.05)])
@pytest.mark.parametrize("n", [30, 200])
def test_the_interval_covers_95_percent_where_students_does_not(shares: tuple, n: int) -> None:
    pick, mean = np.random.default_rng(n), LEVELS @ shares
    found = [bounded_mean(pick.choice(LEVELS, n, p=shares)) for _ in range(300)]
    # 300 draws at exactly 95 % cover less than 92 % once in a hundred times.
    assert np.mean([e.low <= mean <= e.high for e in found]) >= 0.92
    # Still useful: not three times as wide as the normal interval that knows the variance.
    sd = math.sqrt(LEVELS**2 @ shares - mean**2)
    assert np.mean([e.high - e.low for e in found]) < 3 * 2 * 1.96 * sd / math.sqrt(n)


def test_the_interval_of_a_sum_over_classes_covers_95_percent() -> None:
    pick, shares = np.random.default_rng(0), np.array((0.8, 0.1, 0.05, 0.05))
    true, hits = 5 * LEVELS @ shares, 0
    for _ in range(100):
        labels, values = pick.integers(0, 5, 150), pick.choice(LEVELS, 150, p=shares)
        found = sum_of_means(labels, values)
        hits += found.low <= true <= found.high
    assert hits >= 90


def test_the_pairs_that_cost_most_come_first_and_add_up() -> None:
    found = costs.costly_pairs(confusion(LABELS, ATTACKED, 3), COSTS)
    assert [(p.label, p.predicted, p.count) for p in found] == [
        (0, 1, 2),
        (1, 2, 1),
        (2, 1, 1),
        (2, 0, 2),
        (0, 2, 1),
    ]
    assert found[0].share == pytest.approx(2 / 3.6)
    assert sum(pair.share for pair in found) == pytest.approx(1)
    assert costs.costly_pairs(np.eye(3) * 9, COSTS) == []
    assert len(costs.costly_pairs(np.ones((3, 3)), COSTS, 2)) == 2


def test_directions_count_the_points_that_were_right_when_clean() -> None:
    counts = costs.turned(points(), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 1, 1], [2, 0, 1]]
    found = {(p.label, p.predicted): p.rate for p in costs.directions(counts)}
    assert len(found) == 6
    assert (found[0, 1].count, found[0, 1].n) == (2, 3)
    assert (found[1, 2].count, found[1, 2].n) == (1, 2)
    assert (found[2, 1].count, found[2, 1].n) == (0, 3)


def test_two_models_are_compared_on_the_points_that_both_had_right() -> None:
    clean = np.array([0, 0, 1, 0, 1, 1, 2, 2, 2, 2])
    attacked = np.array([0, 0, 1, 0, 1, 1, 2, 2, 0, 2])
    first, second = points(), points(attacked, clean)
    assert costs.turned(first, 3, second).tolist() == [[1, 1, 0], [0, 1, 1], [2, 0, 1]]
    assert costs.turned(second, 3, first).tolist() == [[2, 0, 0], [0, 2, 0], [1, 0, 2]]
    found = costs.turned_apart(first, second, 3)
    assert [(pair.label, pair.predicted) for pair in found] == [(0, 1), (1, 2), (2, 0)]
    last = found[-1]
    assert [(r.count, r.n) for r in (last.first, last.second)] == [(2, 3), (1, 3)]
    # Paired: the same attack broke other points of class 2.
    assert last.difference == bounded_mean(np.array([1.0, 1.0, -1.0]), -1, 1)
    assert [pair.difference.value for pair in found] == pytest.approx([1 / 2, 1 / 2, 1 / 3])
    assert costs.turned_apart(first, second, 3, most=1) == found[:1]
    assert costs.turned_apart(first, first, 3) == []


def test_a_pair_holds_better_where_more_points_say_so() -> None:
    counts = np.array([[90, 0, 10], [0, 8, 2], [0, 0, 0]])
    found = [(p.label, p.predicted) for p in costs.directions(counts)]
    assert found == [(1, 2), (0, 2), (1, 0), (0, 1)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_a_pairs_share_is_what_the_attack_did_to_it(seed: int, n: int) -> None:
    pick = np.random.default_rng(seed)
    labels, attacked = pick.integers(0, 4, (2, n))
    table = EvalPoints(
        ids=np.arange(n),
        labels=labels,
        clean_predictions=labels,
        adversarial_predictions=attacked,
        robust=attacked == labels,
        broken_by=np.where(attacked == labels, -1, 0),
        sizes=np.zeros(n),
        forwards=np.zeros(n),
        backwards=np.zeros(n),
    )
    for pair in costs.directions(costs.turned(table, 4)):
        here = labels == pair.label
        assert pair.rate.value == pytest.approx(np.mean(attacked[here] == pair.predicted))


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: costs.normalised([[1, 2]]), "a confusion matrix is 1x2, not square"),
        (lambda: costs.accuracy_gap(np.eye(2), np.eye(3)), "are of 2 and 3 classes"),
        (lambda: costs.weighted_score(np.eye(2), COSTS), "are of 2 and 3 classes"),
        (lambda: costs.correlation(np.eye(2), COSTS), "are of 2 and 3 classes"),
        (lambda: costs.expected_cost([0, 3], [0, 0], COSTS), "label 3 is none of the metric's 3"),
        (lambda: costs.expected_cost([0, 0], [0, -1], COSTS), "prediction -1 is none"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(call, why: str) -> None:
    with pytest.raises(RobustkitError, match=why) as refused:
        call()
    assert "\n" not in str(refused.value)


NAMES = ("cat", "dog", "car")
METRIC = Named("cost.csv", LabelMetric(("car", "dog", "cat"), COSTS[::-1, ::-1], "by hand"))


def measured(path: Path, **changes: object) -> Measured:
    folder = RunFolder(path)
    if not folder.record.exists():
        folder = write_run(path)
    record, table = write_eval(folder, classes=NAMES, n=90, shown=0, **changes)
    return Measured(folder.path, record, table)


def test_a_cost_record_names_metric_evaluation_and_pairs(tmp_path: Path) -> None:
    found = measured(tmp_path / "run", eps=0.3)
    made = cost_record(found, METRIC)
    assert made.metric.name == "cost.csv"
    assert made.metric.source == "by hand"
    assert made.evaluated.evaluation == found.record.stem
    table = found.points
    assert made.adversarial == costs.expected_cost(
        table.labels, table.adversarial_predictions, COSTS
    )
    assert made.clean.value < made.adversarial.value < made.score.value
    first = made.pairs[0]
    assert first.cost == COSTS[NAMES.index(first.label), NAMES.index(first.predicted)]
    file = made.file(RunFolder(tmp_path / "run"))
    made.write(file)
    assert CostRecord.read(file) == made
    assert list(CostRecord.all_of(RunFolder(tmp_path / "run"))) == [made]


def test_a_cost_record_is_no_evaluation(tmp_path: Path) -> None:
    from robustkit.report import collect

    found = measured(tmp_path / "run")
    made = cost_record(found, METRIC)
    folder = RunFolder(tmp_path / "run")
    made.write(made.file(folder))
    assert [record.stem for record, _ in folder.results()] == [found.record.stem]
    assert len(collect([folder.path])[0].evaluations) == 1


def test_gap_score_and_directions_are_kept_whole(tmp_path: Path) -> None:
    ours = measured(tmp_path / "ours", eps=0.3, seed=0)
    theirs = measured(tmp_path / "theirs", eps=0.3, seed=0, clean_share=0.5)
    made = (
        (gap_record(ours, theirs, METRIC), GapRecord),
        (gap_record(ours, theirs, None), GapRecord),
        (score_record(ours, METRIC, theirs), ScoreRecord),
        (score_record(ours, METRIC), ScoreRecord),
        (directions_record(ours), DirectionsRecord),
        (directions_record(ours, theirs), DirectionsRecord),
        (directions_record(ours, None, METRIC), DirectionsRecord),
        (directions_record(ours, theirs, METRIC), DirectionsRecord),
    )
    assert len({record.stem for record, _ in made}) == len(made)
    for record, kind in made:
        path = tmp_path / f"{record.stem}.json"
        record.write(path)
        assert kind.read(path) == record


def test_a_gap_of_classes_without_points_can_be_written(tmp_path: Path) -> None:
    ours = measured(tmp_path / "ours")
    empty = ours.record.model_copy(update={"confusion_clean": ((1, 1, 0), (0, 0, 0), (0, 1, 1))})
    ours = Measured(ours.run, empty, ours.points)
    made = gap_record(ours, ours, METRIC)
    made.write(tmp_path / "gap.json")
    read = GapRecord.read(tmp_path / "gap.json")
    assert all(map(math.isnan, read.gap[1]))
    assert read.gap[0] == (0, 0, 0)


def test_a_score_against_a_model_that_is_the_same_is_zero(tmp_path: Path) -> None:
    ours = measured(tmp_path / "ours", eps=0.3)
    made = score_record(ours, METRIC, ours)
    assert made.difference is not None
    assert made.difference.value == 0
    assert made.difference.low < 0 < made.difference.high


def test_what_a_broken_attack_made_is_not_measured(tmp_path: Path) -> None:
    found = measured(tmp_path / "run", eps=0.3)
    part = found.record.parts[0].model_copy(update={"rejected": 2})
    broken = found.record.model_copy(update={"parts": (part, *found.record.parts[1:])})
    for make in (
        lambda m: cost_record(m, METRIC),
        lambda m: score_record(m, METRIC),
        directions_record,
    ):
        with pytest.raises(BadValueError, match="says nothing: 'apgd-ce' left the threat"):
            make(Measured(found.run, broken, found.points))


def test_a_metric_of_other_classes_is_refused(tmp_path: Path) -> None:
    other = Named("x.csv", LabelMetric(("cat", "dog", "ship"), COSTS))
    with pytest.raises(RobustkitError, match="unknown class of the metric 'car'"):
        cost_record(measured(tmp_path / "run"), other)


def test_verdicts_are_told_apart() -> None:
    changed = ATTACKED.copy()
    changed[1] = 2
    assert digest_of(points()) == digest_of(points())
    assert digest_of(points()) != digest_of(points(changed))


def test_no_analysis_of_records_imports_torch() -> None:
    code = "import sys, robustkit.analysis.recorded; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
