"""Accuracy by the size of the perturbation: ranges of --eps, and what a report makes of them."""

from __future__ import annotations

import io
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import write_eval, write_run
from rich.console import Console
from typer.testing import CliRunner

from robustkit.cli import app
from robustkit.cli.options import sizes
from robustkit.errors import BadValueError
from robustkit.records import Rate, RunFolder, Threat
from robustkit.report import Run, accuracies, collect, html, markdown, terminal
from robustkit.report.comparison import compare

SIZES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0:4:0.25", [i / 4 for i in range(17)]),
        ("0:8/255:1/255", [i / 255 for i in range(9)]),
        ("0:1:0.1", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("0:1:0.3", [0, 0.3, 0.6, 0.9]),
        ("2:2:1", [2]),
        ("8/255, 0.5:1:0.5,1,inf", [8 / 255, 0.5, 1, math.inf]),
        ("", []),
    ],
)
def test_sizes_are_read_exact_to_rounding(text: str, found: list[float]) -> None:
    assert sizes(text) == found


@given(st.integers(0, 99), st.integers(1, 60), st.integers(1, 40), st.integers(1, 1000))
def test_a_range_is_what_a_list_of_its_fractions_is(
    first: int, steps: int, step: int, unit: int
) -> None:
    places = [first + i * step for i in range(steps + 1)]
    text = ":".join(f"{n}/{unit}" for n in (first, places[-1], step))
    assert sizes(text) == [float(Fraction(n, unit)) for n in places]
    assert sizes(",".join(f"{n}/{unit}" for n in places)) == sizes(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0:4", "--eps '0:4' is no range; write start:stop:step, as 0:4:0.25"),
        ("0:inf:1", "--eps '0:inf:1' is no range"),
        ("0:1:2:3", "--eps '0:1:2:3' is no range"),
        ("0:4:0", "--eps '0:4:0' goes nowhere"),
        ("4:0:1", "--eps '4:0:1' goes nowhere"),
        ("0:4:-1", "eps '-1' is not a size"),
        ("0:a:1", "eps 'a' is not a size"),
        ("0:1:1e-9", "--eps '0:1:1e-9' is 1000000001 sizes; at most 1000 are taken"),
    ],
)
def test_bad_ranges_are_refused_in_a_line(text: str, why: str) -> None:
    with pytest.raises(BadValueError, match=re.escape(why)) as refused:
        sizes(f"0.1,{text}")
    assert "\n" not in str(refused.value)


def swept(path: Path, strength: float = 1.0) -> RunFolder:
    """A run with two attacks at seven sizes, and another one at a single size."""
    folder = write_run(path)
    for eps in SIZES:
        weak = ("weak at once",) if eps in (0.1, 0.15) else ()
        write_eval(folder, "pgd", eps=eps, parts=["pgd"], strength=strength, warnings=weak, shown=2)
        write_eval(
            folder, "fgsm", eps=eps, parts=["fgsm"], strength=strength / 2, remarks=("fast",)
        )
    write_eval(folder, "square", eps=0.2, parts=["square"], strength=0.1, shown=0)
    return folder


def in_terminal(runs: list[Run]) -> str:
    file = io.StringIO()
    terminal.show(runs, Console(file=file, width=80))
    return file.getvalue()


def test_many_sizes_stand_in_one_table(tmp_path: Path) -> None:
    (run,) = collect([swept(tmp_path / "run").path])
    (sweep,) = accuracies.sweeps(run)
    assert [name for name, _ in sweep.attacks] == ["fgsm", "pgd", "worst case"]
    assert [size for size, _ in sweep.lines] == ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]
    measured = {(e.record.attack["name"], e.record.threat.eps): e.record for e in run.evaluations}
    for eps, (_, (fgsm, pgd, worst)) in zip(SIZES, sweep.lines, strict=True):
        assert (fgsm, pgd) == (measured["fgsm", eps].robust, measured["pgd", eps].robust)
        assert worst == pgd  # fgsm breaks half as far, of the same points
    assert sweep.lines[0][1] == (sweep.clean,) * 3
    widest = max(r.high - r.low for _, cells in sweep.lines for r in cells if isinstance(r, Rate))
    assert widest / 2 < sweep.spread < widest
    assert sweep.warnings == ("pgd at 0.1, 0.15: weak at once",)
    assert sweep.remarks == ("fgsm: fast",)
    assert dict(sweep.origins)["Threat"] == "linf 0; linf 0.05; …; linf 0.3 (7 in all)"
    assert dict(sweep.origins)["Seed"] == "0"
    # Told one by one is what is no sweep, and all that the run's own threat is about.
    assert {(e.record.attack["name"], e.record.threat.eps) for e in accuracies.apart(run)} == {
        ("fgsm", 0.1),
        ("pgd", 0.1),
        ("square", 0.2),
    }
    rows = [(row.attack, row.threat) for row in accuracies.rows(run)]
    assert rows == [
        ("fgsm", "linf 0.1"),
        ("pgd", "linf 0.1"),
        ("worst case", "linf 0.1"),
        ("square", "linf 0.2"),
        ("worst case", "linf 0.2"),
    ]


def test_a_report_of_many_sizes_stays_short(tmp_path: Path) -> None:
    runs = collect([swept(tmp_path / "run").path])
    page, text, shown = html.render(runs), markdown.render(runs), in_terminal(runs)
    assert page.count('<table class="matrix') == 2 * 3
    assert "Robust accuracy by eps (linf), in numbers" in page
    assert len(re.findall(r"^\| 0\.\d+ \|", text, re.M)) == 6
    lines = shown.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 80
    (_, (fgsm, pgd, worst)) = accuracies.sweeps(runs[0])[0].lines[2]
    assert fgsm and pgd and worst
    cells = rf"0\.1 +{100 * fgsm.value:.1f} +{100 * pgd.value:.1f} +{100 * worst.value:.1f} *$"
    assert any(re.match(rf" *{cells}", line) for line in lines)
    for found in (page, text, shown):
        assert "pgd at 0.1, 0.15: weak at once" in found.replace("\\", "")


def test_with_and_without_the_box_are_two_sweeps(tmp_path: Path) -> None:
    folder = swept(tmp_path / "run")
    for eps in SIZES:
        threat = Threat(norm="linf", eps=eps, low=-math.inf, high=math.inf)
        write_eval(folder, "pgd", eps=eps, parts=["pgd"], threat=threat, hash="open", shown=0)
    (run,) = collect([folder.path])
    closed, opened = accuracies.sweeps(run)
    assert (closed.where, opened.where) == ("linf", "linf, no box")
    assert [name for name, _ in opened.attacks] == ["pgd"]


def test_other_points_seeds_or_weights_are_another_sweep(tmp_path: Path) -> None:
    folder = swept(tmp_path / "run")
    changes: list[dict[str, Any]] = [{"n": 50}, {"seed": 1}, {"model_hash": "other"}]
    for i, change in enumerate(changes):
        for eps in SIZES:
            write_eval(folder, "pgd", eps=eps, parts=["pgd"], shown=0, hash=f"other{i}", **change)
    (run,) = collect([folder.path])
    assert [len(sweep.attacks) for sweep in accuracies.sweeps(run)].count(1) == 3


def test_runs_are_compared_at_their_threats_and_in_a_chart_an_attack(tmp_path: Path) -> None:
    folders = [swept(tmp_path / f"run{i}", 1 + i / 3).path for i in range(4)]
    runs = collect(folders)
    names = [column.name for column in compare(runs).columns]
    assert names == ["fgsm linf 0.1", "pgd linf 0.1", "square linf 0.2"]
    page = html.render(runs)
    overlay = page[: page.index("<article")]
    captions = re.findall(r"Robust accuracy by linf perturbation size eps[^,]*", overlay)
    assert len(set(captions)) == 2
    assert {caption.rpartition(" ")[2] for caption in captions} == {"fgsm", "pgd"}
    for i in range(4):
        assert overlay.count(f">run{i}</text>") == 2
    few = html.render(runs[:2])
    assert ">run0, fgsm</text>" in few[: few.index("<article")]


def test_eval_takes_a_range_and_size_0_is_the_clean_accuracy(tmp_path: Path) -> None:
    out = tmp_path / "run"
    tiny = ["--set", "model=mlp", "--set", "model.hidden=[16]", "--set", "fit.limit=300"]
    train = ["train", "--plugin", "standard", "--epochs", "2", "--out", str(out), *tiny]
    assert CliRunner().invoke(app, train).exit_code == 0
    attacks = ["--norm", "l2", "--attack", "fgsm,pgd", "--eps", "0:3:0.5", "--limit", "40"]
    done = CliRunner().invoke(app, ["eval", str(out), *attacks])
    assert done.exit_code == 0, done.output
    assert "Robust accuracy in % by eps (l2) on 40 points" in done.stdout
    found = [record for record, _ in RunFolder(out).results()]
    assert len(found) == 14
    assert all(record.robust == record.clean for record in found if record.threat.eps == 0)
    refused = CliRunner().invoke(app, ["eval", str(out), "--eps", "0:4"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("robustkit: --eps '0:4' is no range")
