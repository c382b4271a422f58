"""robustkit analyse and eval --metric, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import DIGITS, write_eval, write_run
from typer.testing import CliRunner, Result

from robustkit.analysis.costs import weighted_score
from robustkit.analysis.records import CostRecord, DirectionsRecord, GapRecord, ScoreRecord
from robustkit.arrays import EvalPoints
from robustkit.cli import app
from robustkit.metric import LabelMetric
from robustkit.records import RunFolder
from robustkit.report import collect, html, markdown
from robustkit.report.costs import rows


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def metric_of(path: Path, classes: tuple[str, ...] = DIGITS) -> LabelMetric:
    """A metric whose costs tell its classes apart, as a file."""
    places = np.array([int(name) for name in classes])
    metric = LabelMetric(classes, np.abs(places[:, None] - places[None, :]) ** 0.5, "by hand")
    metric.write(path)
    return metric


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same points, and a metric."""
    folder = tmp_path_factory.mktemp("place")
    for name, clean, strength in (("robust", 0.7, 0.3), ("standard", 0.95, 2.0)):
        made = write_run(folder / name)
        for eps in (0.1, 0.2):
            write_eval(
                made, "pgd", eps=eps, parts=["pgd"], clean_share=clean, strength=strength, shown=0
            )
    metric_of(folder / "cost.csv")
    return folder


def files(result: Result) -> dict[str, Path]:
    found = [Path(line) for line in result.stdout.splitlines() if re.search(r"\.\w+$", line)]
    paths = {path.suffix: path for path in found}
    assert set(paths) == {".json", ".png", ".svg"}
    assert paths[".png"].read_bytes().startswith(b"\x89PNG")
    assert paths[".svg"].read_text().rstrip().endswith("</svg>")
    return paths


def test_gap_shows_correlation_both_ways(place: Path) -> None:
    runs = (place / "robust", place / "standard")
    result = run("analyse", "gap", *runs, "--metric", place / "cost.csv")
    record = GapRecord.read(files(result)[".json"])
    first, second = (collect([r])[0].evaluations[0].record for r in runs)
    ours, theirs = (np.array(r.confusion_clean, float) for r in (first, second))
    by_hand = abs(ours / ours.sum(1, keepdims=True) - theirs / theirs.sum(1, keepdims=True))
    np.testing.assert_allclose(record.gap, by_hand)
    assert record.correlation is not None
    rho = np.corrcoef(by_hand.ravel(), LabelMetric.read(place / "cost.csv").costs.ravel())[0, 1]
    assert record.correlation.with_diagonal == pytest.approx(rho)
    assert f"correlation {rho:.2f} with the diagonal" in result.stdout
    assert record.metric is not None
    assert record.metric.source == "by hand"


def test_gap_needs_no_metric_and_goes_where_it_is_told(place: Path, tmp_path: Path) -> None:
    result = run("analyse", "gap", place / "robust", place / "standard", "--out", tmp_path / "out")
    assert GapRecord.read(files(result)[".json"]).correlation is None
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_score_is_that_of_the_evaluation_named(place: Path) -> None:
    metric = LabelMetric.read(place / "cost.csv")
    arguments = ("--metric", place / "cost.csv", "--eval", "pgd-linf-0.2")
    result = run("analyse", "score", place / "robust", "--against", place / "standard", *arguments)
    record = ScoreRecord.read(files(result)[".json"])
    assert record.evaluated.evaluation.startswith("pgd-linf-0.2")
    assert record.against is not None
    assert record.against.evaluation.startswith("pgd-linf-0.2")
    values = []
    for name in ("robust", "standard"):
        found = collect([place / name])[0].evaluations[1].record
        values.append(weighted_score(found.confusion_adversarial, metric.costs))
    assert record.score.value == pytest.approx(values[0])
    assert record.difference is not None
    assert record.difference.value == pytest.approx(values[0] - values[1])
    assert f"difference: {values[0] - values[1]:.3f} [" in result.stdout


def test_directions_count_points_right_when_clean(place: Path) -> None:
    result = run("analyse", "directions", place / "standard", "--eval", "pgd-linf-0.2")
    record = DirectionsRecord.read(files(result)[".json"])
    points = collect([place / "standard"])[0].evaluations[1].points
    right = points.clean_predictions == points.labels
    for pair in (*record.least, *record.most):
        here = right & (points.labels == DIGITS.index(pair.label))
        turned = here & (points.adversarial_predictions == DIGITS.index(pair.predicted))
        assert (pair.turned.count, pair.turned.n) == (turned.sum(), here.sum())
    assert record.least[0].turned.value == max(p.turned.value for p in record.least)
    assert record.most[0].turned.value <= record.least[-1].turned.value


def test_directions_of_two_models_are_of_the_same_points(place: Path) -> None:
    arguments = ("--against", place / "robust", "--metric", place / "cost.csv")
    result = run("analyse", "directions", place / "standard", *arguments, "--eval", "pgd-linf-0.2")
    record = DirectionsRecord.read(files(result)[".json"])
    first, second = (
        collect([place / name])[0].evaluations[1].points for name in ("standard", "robust")
    )
    right = (first.clean_predictions == first.labels) & (second.clean_predictions == second.labels)
    assert f"of {right.sum()} right when clean by both" in result.stdout
    assert sum(map(sum, record.counts)) == sum(map(sum, record.other_counts)) == right.sum()
    pair = record.apart[0]
    here = right & (first.labels == DIGITS.index(pair.label))
    turned = [
        (each.adversarial_predictions == DIGITS.index(pair.predicted)) & here
        for each in (first, second)
    ]
    assert [pair.first.count, pair.second.count] == [mask.sum() for mask in turned]
    assert pair.difference.value == pytest.approx(
        (turned[0].mean() - turned[1].mean()) / here.mean()
    )
    assert abs(pair.difference.value) == max(abs(p.difference.value) for p in record.apart)
    shares = np.array(record.counts) / np.sum(record.counts, axis=1, keepdims=True)
    apart = ~np.eye(10, dtype=bool)
    costs = LabelMetric.read(place / "cost.csv").costs
    rho = np.corrcoef(shares[apart], costs[apart])[0, 1]
    assert record.correlation == pytest.approx(rho)
    assert f"over pairs of classes: standard {rho:.2f}, robust " in result.stdout
    assert (
        record.stem
        != DirectionsRecord.read(
            files(run("analyse", "directions", place / "standard", "--eval", "pgd-linf-0.2"))[
                ".json"
            ]
        ).stem
    )


def test_points_in_another_order_are_the_same_points(place: Path, tmp_path: Path) -> None:
    mixed = RunFolder(tmp_path / "mixed")
    source = RunFolder(place / "standard")
    for record, points in source.results():
        order = np.random.default_rng(0).permutation(len(points.ids))
        record.write(mixed.evaluations / f"{record.stem}.json")
        changed = EvalPoints(**{name: values[order] for name, values in vars(points).items()})
        changed.write(mixed.evaluations / f"{record.stem}.npz")
    arguments = ("--metric", place / "cost.csv", "--against", source.path)
    result = run("analyse", "score", mixed.path, *arguments)
    record = ScoreRecord.read(files(result)[".json"])
    assert record.difference is not None
    assert record.difference.value == 0
    assert record.against is not None
    assert record.evaluated.points == record.against.points


def test_what_cannot_be_analysed_is_said_in_a_line(place: Path, tmp_path: Path) -> None:
    cost = ("--metric", place / "cost.csv")
    robust, standard = place / "robust", place / "standard"
    other = write_run(tmp_path / "other")
    empty = write_run(tmp_path / "empty")
    write_eval(other, "pgd", parts=["pgd"], n=100, seed=5, shown=0)
    assert "not evaluated on the same points" in refused("analyse", "gap", robust, other.path)
    for missing in (("--against", other.path), ("--against", empty.path)):
        assert "has no evaluation like pgd-linf-0.1" in refused(
            "analyse", "score", robust, *cost, *missing
        )
    assert "has no evaluation: robustkit eval" in refused("analyse", "directions", empty.path)
    assert "begins several evaluations" in refused(
        "analyse", "directions", robust, "--eval", "pgd-linf"
    )
    assert "did you mean 'pgd-linf-0." in refused(
        "analyse", "directions", robust, "--eval", "pdg-linf-0.1"
    )
    assert "is no run folder" in refused("analyse", "gap", robust, tmp_path / "none")
    assert "unknown label metric 'wordnet-cifar'" in refused(
        "analyse", "gap", robust, standard, "--metric", "wordnet-cifar"
    )
    metric_of(tmp_path / "few.csv", DIGITS[:9])
    assert "unknown class of the metric '9'" in refused(
        "analyse", "score", robust, "--metric", tmp_path / "few.csv"
    )


def test_analyses_import_no_torch(place: Path, tmp_path: Path) -> None:
    script = f"""
import sys, robustkit.cli
sys.argv = ['robustkit', 'analyse', 'score', {str(place / "robust")!r}, '--metric',
    {str(place / "cost.csv")!r}, '--out', {str(tmp_path)!r}]
try:
    robustkit.cli.main()
except SystemExit as left:
    assert not left.code, left.code
assert not {{'torch', 'torchvision', 'sklearn'}} & set(sys.modules)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A model of the zoo, attacked, its errors weighed by a metric whose classes are mixed."""
    folder = tmp_path_factory.mktemp("weighed")
    metric_of(folder / "cost.csv", tuple("3906471258"))
    out = folder / "run"
    arguments = ("--attack", "fgsm,pgd", "--set", "pgd.steps=3", "--eps", "0.2", "--limit", "150")
    asked = ("eval", "zoo:digits-policy-gradient", *arguments, "--out", out)
    return RunFolder(out), run(*asked, "--metric", folder / "cost.csv").stdout


def test_eval_weighs_errors_in_the_order_of_the_data(weighed: tuple[RunFolder, str]) -> None:
    folder, shown = weighed
    places = np.arange(10.0)
    costs = np.abs(places[:, None] - places[None, :]) ** 0.5 / 3
    results = {record.stem: (record, points) for record, points in folder.results()}
    found = list(CostRecord.all_of(folder))
    assert len(found) == len(results) == 2
    for cost in found:
        record, points = results[cost.evaluated.evaluation]
        paid = costs[points.labels, points.adversarial_predictions]
        assert cost.adversarial.value == pytest.approx(paid.mean())
        assert cost.score.value == pytest.approx(
            weighted_score(record.confusion_adversarial, costs)
        )
        assert cost.clean.value < cost.adversarial.value
        total = sum(pair.count * pair.cost for pair in cost.pairs) / len(paid)
        assert sum(pair.share for pair in cost.pairs) == pytest.approx(total / paid.mean())
        assert f"{cost.adversarial.value:.3f} [{cost.adversarial.low:.3f}" in shown
        assert f"{cost.pairs[0].label} as {cost.pairs[0].predicted}:" in shown


def test_reports_show_costs_and_take_them_for_no_evaluation(
    weighed: tuple[RunFolder, str],
) -> None:
    runs = collect([weighed[0].path])
    assert len(runs[0].evaluations) == 2
    first = next(rows(runs[0]))
    for text in (html.render(runs), markdown.render(runs).replace("\\", "")):
        assert "What errors cost" in text
        assert first.adversarial in text
        assert first.dearest.split(",")[0] in text
    assert "by hand" in html.render(runs)


def test_a_report_without_costs_has_no_section_on_them(place: Path) -> None:
    runs = collect([place / "robust"])
    for text in (html.render(runs), markdown.render(runs)):
        assert "What errors cost" not in text


def test_costs_of_verdicts_made_anew_are_marked(tmp_path: Path, place: Path) -> None:
    from robustkit.analysis.recorded import Measured, Named, cost_record

    folder = write_run(tmp_path / "run")
    named = Named("cost.csv", LabelMetric.read(place / "cost.csv"))
    made = cost_record(Measured(folder.path, *write_eval(folder, shown=0)), named)
    made.write(made.file(folder))
    assert [row.remark for row in rows(collect([folder.path])[0])] == [""]
    write_eval(folder, shown=0, strength=2.0)
    (row,) = rows(collect([folder.path])[0])
    assert "was evaluated anew" in row.remark
    assert row.remark in html.render(collect([folder.path]))


def test_a_damaged_cost_record_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_eval(folder, shown=0)
    damaged = folder.path / "costs" / "x.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert f"'{damaged}' is damaged" in refused("report", folder.path)


@pytest.mark.parametrize("text", ["0,1\n1,0\n", "nonsense", "a,b\n"])
def test_eval_refuses_a_metric_before_it_attacks(text: str, tmp_path: Path) -> None:
    (tmp_path / "cost.csv").write_text(text)
    out = tmp_path / "out"
    arguments: tuple[Any, ...] = ("--attack", "fgsm", "--limit", "10", "--out", out)
    refused("eval", "zoo:digits-policy-gradient", *arguments, "--metric", tmp_path / "cost.csv")
    assert not out.exists()


def test_records_say_their_schema(weighed: tuple[RunFolder, str]) -> None:
    for path in (weighed[0].path / "costs").iterdir():
        assert json.loads(path.read_text())["schema"] == 1
