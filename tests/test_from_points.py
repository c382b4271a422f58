"""Robust accuracy by eps, and by queries, from single runs: curves and tables."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import write_eval, write_run
from rich.console import Console
from typer.testing import CliRunner

from robustkit.analysis.statistics import rate
from robustkit.arrays import EvalPoints
from robustkit.cli import app
from robustkit.records import RunFolder
from robustkit.report import Run, accuracies, collect, html, markdown, terminal
from robustkit.report.from_points import Spent, spent


def sized(folder: RunFolder, attack: str, sizes: list[float], **more: Any) -> None:
    """Write an attack at eps = inf that breaks each of some points at a size; NaN for unbroken."""
    record, _ = write_eval(folder, attack, "l2", math.inf, parts=[attack], n=len(sizes), shown=0)
    cost = np.asarray(sizes)
    state = np.where(np.isfinite(cost), 0, -1)
    _rewrite(folder, record, state, sizes=cost, **more)


def queried(folder: RunFolder, attack: str, queries: list[int], broken: list[bool]) -> None:
    """Write an attack that asked for no gradient, and spent so many queries on each point."""
    record, _ = write_eval(folder, attack, "linf", 0.1, parts=[attack], n=len(broken), shown=0)
    state = np.where(broken, 0, -1)
    forwards = np.asarray(queries, np.float64)
    _rewrite(folder, record, state, forwards=forwards, backwards=0 * forwards)


def _rewrite(folder: RunFolder, record: Any, state: Any, **arrays: Any) -> None:
    path = folder.evaluations / f"{record.stem}.npz"
    points = vars(EvalPoints.read(path)) | {"broken_by": state, "robust": state == -1} | arrays
    points["ids"] = np.arange(len(state))
    EvalPoints(**points).write(path)
    n, left = len(state), int((state == -1).sum())
    rates = {"clean": rate(n, n), "robust": rate(left, n)}
    changed = type(record).model_validate(record.model_dump(by_alias=True) | rates)
    changed.write(path.with_suffix(".json"))


def read(folder: RunFolder) -> Run:
    (run,) = collect([folder.path])
    return run


def counts(found: Spent, limit: float) -> list[int]:
    return [column.robust(limit).count for column in found.columns]


def test_each_point_falls_to_whichever_attack_needs_least(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    sized(folder, "ddn", [0.1, 0.4, math.nan, 0.4])
    sized(folder, "fmn", [0.2, 0.3, math.nan, math.nan])
    (found,) = spent(read(folder).evaluations)
    assert [column.name for column in found.columns] == ["ddn", "fmn", "worst case"]
    assert counts(found, 0.0) == [4, 4, 4]
    assert counts(found, 0.1) == [3, 4, 3]  # at its own size a point is broken
    assert counts(found, 0.3) == [3, 2, 2]
    assert counts(found, 9.9) == [1, 2, 1]
    for column, curve in zip(found.columns, found.curves(), strict=True):
        assert curve.axis == "l2 perturbation size eps"
        assert curve.at[0] == 0 and curve.at[-1] == 0.4
        assert curve.rates == tuple(column.robust(eps) for eps in curve.at)


def test_other_points_or_weights_or_norms_are_no_worst_case(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_eval(folder, "ddn", "l2", math.inf, parts=["ddn"], shown=0)
    write_eval(folder, "fmn", "l2", math.inf, parts=["fmn"], shown=0, n=50)
    write_eval(folder, "fmn", "l1", math.inf, parts=["fmn"], shown=0)
    write_eval(folder, "fmn", "l2", math.inf, parts=["fmn"], shown=0, model_hash="new", hash="b")
    assert [len(found.columns) for found in spent(read(folder).evaluations)] == [1, 1, 1, 1]


def test_a_table_stands_at_round_sizes_and_at_the_runs_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", threat={"norm": "l2", "eps": 0.33})
    sized(folder, "ddn", list(np.linspace(0.01, 0.4, 30)))
    run = read(folder)
    (table,) = accuracies.from_points(run)
    sizes = [size for size, _ in table.lines]
    assert sizes == ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.33", "0.35", "0.4"]
    assert table.lines[0][1] == (table.clean,)
    (row,) = accuracies.rows(run)
    assert row.instead == "median 0.1983, mean 0.205"


def test_queries_are_counted_where_no_gradient_was_asked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    queried(folder, "square", [1, 40, 1000, 1000], [True, True, True, False])
    write_eval(folder, "pgd", parts=["pgd"], shown=0)
    write_eval(folder, "random-noise", "l2", 0.5, parts=["random-noise"], shown=0)
    (found,) = spent(read(folder).evaluations[1:])
    assert (found.by, found.where) == ("queries", "linf 0.1")
    assert [counts(found, limit) for limit in (0, 1, 39, 40, 999, 1000)] == [
        [4],
        [3],
        [3],
        [2],
        [2],
        [1],
    ]
    (table,) = accuracies.from_points(read(folder))
    assert [q for q, _ in table.lines] == ["0", "10", "20", "50", "100", "200", "500", "1000"]


def test_every_report_tells_the_curve(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    sized(folder, "ddn", list(np.linspace(0.01, 0.4, 30)))
    sized(folder, "fmn", list(np.linspace(0.02, 0.3, 30)))
    runs = [read(folder)]
    shown = io.StringIO()
    terminal.show(runs, Console(file=shown, width=80))
    page, text = html.render(runs), markdown.render(runs)
    assert "Robust accuracy in % by eps (l2) on 30 points" in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) <= 80
    assert "## Robust accuracy by eps (l2)" in text
    assert "Robust accuracy by eps (l2), in numbers" in page
    for found in (shown.getvalue(), text, page):
        assert "worst case" in found
        assert "mean 0.16" in found
    assert (
        page.count("Robust accuracy by l2 perturbation size eps, from the clean") == 2
    )  # label, caption
    assert ">worst case</text>" in page


def test_eval_of_the_smallest_perturbations_agrees_with_runs_at_an_eps(tmp_path: Path) -> None:
    out = tmp_path / "run"
    tiny = ["--set", "model=mlp", "--set", "model.hidden=[16]", "--set", "fit.limit=300"]
    train = ["train", "--plugin", "standard", "--epochs", "2", "--out", str(out), *tiny]
    assert CliRunner().invoke(app, train).exit_code == 0
    what = ["eval", str(out), "--norm", "l2", "--limit", "40"]
    done = CliRunner().invoke(app, [*what, "--attack", "fmn,ddn", "--eps", "inf"])
    assert done.exit_code == 0, done.output
    assert "Robust accuracy in % by eps (l2) on 40 points" in done.stdout
    assert CliRunner().invoke(app, [*what, "--attack", "apgd-ce", "--eps", "0.5"]).exit_code == 0
    (found,) = (each for each in spent(read(RunFolder(out)).evaluations) if each.by == "eps")
    (direct,) = (r for r, _ in RunFolder(out).results() if math.isfinite(r.threat.eps))
    assert found.columns[-1].robust(0.5).count == pytest.approx(direct.robust.count, abs=1)


def test_square_with_few_queries_says_what_they_bought(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run"), "--limit", "30", "--norm", "l2", "--eps", "1.2"]
    few = ["--attack", "square", "--set", "square.queries=60"]
    done = CliRunner().invoke(app, ["eval", "zoo:digits-policy-gradient", *few, *out])
    assert done.exit_code == 0, done.output
    assert "Robust accuracy in % by queries (l2 1.2) on 30 points" in done.stdout
    ((record, points),) = RunFolder(tmp_path / "run").results()
    (found,) = spent(read(RunFolder(tmp_path / "run")).evaluations)
    assert points.forwards.max() == 61  # the start, and each query
    assert (points.forwards[points.broken_by >= 0] < 61).any()
    assert found.columns[0].robust(61) == record.robust
    assert found.columns[0].robust(0).count == record.clean.count
