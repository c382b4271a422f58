"""Published tables made again: what is planned, what is cut, and what stands in the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustkit import tables
from robustkit.catalog import Entry, build, installed
from robustkit.engine import reproduce, tabulate
from robustkit.engine.loop import Silent
from robustkit.engine.provenance import now
from robustkit.engine.reproduce import Cut, Job, Run
from robustkit.engine.selection import Measured, Selection
from robustkit.engine.work import Unwatched
from robustkit.errors import BadValueError, TrainingStoppedError, UnknownNameError
from robustkit.records import Rate, RunFolder
from robustkit.report import table as report
from robustkit.tables import Plan, TableRecord

TABLE = """
title = "small"
seeds = [0, 1]

[[columns]]
name = "FGSM"
attack = "fgsm"
threat = { eps = 0.05 }

[[columns]]
name = "PGD"
attack = { name = "pgd", steps = 2 }
threat = { eps = 0.05 }
limit = 40

[[rows]]
name = "plain, short"
recipe = "standard"
set = { "fit.epochs" = 2, "model" = "mlp", "fit.limit" = 200, "select.attack" = "fgsm" }
paper = { clean = 99.19, PGD = 46.88 }

[[rows]]
name = "plain, long"
recipe = "standard"
set = { "fit.epochs" = 4, "model" = "mlp", "fit.limit" = 200, "select.attack" = "fgsm" }
note = "ours alone"
"""


def plan() -> Plan:
    return tables.parse(TABLE, "small")


def make(jobs: list[Job]) -> list[Run]:
    return [(job, job.train("cpu", Silent()), job.evaluate("cpu", Unwatched())) for job in jobs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("plain, long", "plain, short"), "the name 'plain, short' is there twice"),
        (('"PGD"', '"FGSM"'), "the name 'FGSM' is there twice"),
        (("PGD = 46", "Square = 46"), "row 'plain, short' has a number for no column: 'Square'"),
        (
            ("limit = 40", "limit = 0"),
            "columns.1.limit: Input should be greater than or equal to 1",
        ),
        (("title =", "titel ="), "title: Field required"),
    ],
)
def test_a_bad_table_is_refused_in_a_line(change: tuple[str, str], message: str) -> None:
    with pytest.raises(BadValueError, match="table 'small': ") as refused:
        tables.parse(TABLE.replace(*change), "small")
    assert message in str(refused.value)


def test_rows_are_picked_by_name_or_number_in_the_tables_order() -> None:
    names = [row.name for row in tables.pick(plan(), ["2", "plain, short"])]
    assert names == ["plain, short", "plain, long"]
    assert [row.name for row in tables.pick(plan(), ["2"])] == ["plain, long"]
    with pytest.raises(UnknownNameError, match="plain, shrt.*did you mean 'plain, short'"):
        tables.pick(plan(), ["plain, shrt"])


def test_fewer_epochs_keep_the_schedules_shape() -> None:
    table = {
        "trainer": "standard",
        "fit": {"epochs": 200},
        "schedule": {"name": "piecewise", "milestones": [50, 150, 0.9, 200]},
        "select": {"every": 10},
    }
    short = tables.shortened(table, 4)
    assert short["fit"]["epochs"] == 4
    # 2 of 4 epochs as a share: a plain number below 1 would be read as one.
    assert short["schedule"]["milestones"] == [0.25, 0.75, 0.9]
    assert short["select"]["every"] == 1
    assert tables.shortened(table, 100)["select"]["every"] == 5


def test_jobs_are_the_runs_of_a_table(tmp_path: Path) -> None:
    jobs = reproduce.jobs(plan(), Cut(), tmp_path)
    assert [(job.row.name, job.recipe.seed, job.recipe.fit.epochs) for job in jobs] == [
        ("plain, short", 0, 2),
        ("plain, long", 0, 4),
        ("plain, short", 1, 2),
        ("plain, long", 1, 4),
    ]
    assert jobs[2].folder.path == tmp_path / "plain-short-seed1"
    cut = Cut(rows=("1",), seeds=(7,), epochs=2, limit=50, settings=(("optimizer.lr", 0.5),))
    (job,) = reproduce.jobs(plan(), cut, tmp_path)
    assert (job.recipe.seed, job.recipe.fit.epochs, job.recipe.optimizer.lr) == (7, 1, 0.5)
    assert [column.limit for column in job.columns] == [50, 40]
    for epochs in (0, 5):
        with pytest.raises(BadValueError, match=f"--epochs {epochs}: give 1 to 4"):
            reproduce.jobs(plan(), Cut(epochs=epochs), tmp_path)


def test_a_table_is_made_once_and_read_again(tmp_path: Path) -> None:
    cut = Cut(rows=("1",), seeds=(0,), limit=50)
    jobs = reproduce.jobs(plan(), cut, tmp_path)
    first = make(jobs)
    files = sorted(p for p in jobs[0].folder.path.rglob("*") if p.suffix in (".pt", ".npz"))
    times = [p.stat().st_mtime_ns for p in files]
    again = make(jobs)
    assert [rates for *_, rates in again] == [rates for *_, rates in first]
    assert [p.stat().st_mtime_ns for p in files] == times
    (_, stopped, rates) = first[0]
    assert (stopped, list(rates)) == ("", ["clean", "FGSM", "PGD"])
    assert (rates["clean"].n, rates["FGSM"].n, rates["PGD"].n) == (50, 50, 40)
    results = {record.attack["name"]: record for record, _ in jobs[0].folder.results()}
    assert results["pgd"].robust == rates["PGD"]
    other = reproduce.jobs(plan(), Cut(rows=("1",), seeds=(0,), epochs=2), tmp_path)
    with pytest.raises(BadValueError, match="holds a run of another recipe: fit.epochs is 2"):
        make(other)


def rate(count: int, n: int) -> Rate:
    return Rate(count=count, n=n, low=0, high=1)


def test_a_cell_is_the_mean_over_seeds_with_one_seeds_interval(tmp_path: Path) -> None:
    cut = Cut(rows=("1",), epochs=2, settings=(("optimizer.lr", 0.5),))
    jobs = reproduce.jobs(plan(), cut, tmp_path)
    found = [{"clean": rate(90, 100), "PGD": rate(c, 100)} for c in (40, 50)]
    runs = [(job, why, f) for job, why, f in zip(jobs, ("", "it collapsed"), found, strict=True)]
    record = tabulate.table("small", plan(), cut, runs, "cpu", now())
    (row,) = record.rows
    pgd, fgsm = row.cells["PGD"], row.cells["FGSM"]
    assert pgd.ours is not None
    assert pgd.paper == pytest.approx(0.4688)
    assert (pgd.ours.count, pgd.ours.n) == (45, 100)
    assert (round(pgd.ours.low, 4), round(pgd.ours.high, 4)) == (0.3561, 0.5476)
    assert {seed: found.count for seed, found in pgd.seeds.items()} == {0: 40, 1: 50}
    assert fgsm.ours is None
    assert row.notes == ("seed 1: it collapsed",)
    assert record.cuts == (
        "1 of 2 rows",
        "plain, short: 1 of 2 epochs",
        "every recipe has optimizer.lr = 0.5",
        "PGD: the first 40 test points",
    )
    path = tmp_path / "table.json"
    record.write(path)
    assert TableRecord.read(path) == record
    page = report.markdown(record)
    assert "|  | PGD | 46.88 | 45.0 % [35.6, 54.8] | 2: 40.0–50.0 | 100 |" in page
    assert "|  | FGSM | – | – |  | – |" in page
    assert "- cut: plain, short: 1 of 2 epochs" in page
    assert "- plain, short: seed 1: it collapsed" in page


@pytest.mark.parametrize(("epochs_done", "measured"), [(0, False), (1, True)])
def test_a_run_that_stops_early_is_told_and_measured_where_it_left_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs_done: int, measured: bool
) -> None:
    def watch(self: Selection, epoch: int, found: Measured) -> None:
        if epoch > epochs_done:
            raise TrainingStoppedError("training collapsed")

    monkeypatch.setattr(Selection, "watch", watch)
    cut = Cut(rows=("1",), seeds=(0,))
    run = make(reproduce.jobs(plan(), cut, tmp_path))[0]
    assert run[1] == "training collapsed"
    assert bool(run[2]) == measured
    record = tabulate.table("small", plan(), cut, [run], "cpu", now())
    assert record.rows[0].notes == ("seed 0: training collapsed",)
    assert (record.rows[0].cells["PGD"].ours is not None) == measured


@pytest.mark.parametrize("name", [entry.name for entry in installed().of_kind("table")])
def test_every_registered_table_resolves(name: str) -> None:
    found = reproduce.planned(name)
    jobs = reproduce.jobs(found, Cut(), Path("nowhere"))
    assert len({job.folder for job in jobs}) == len(found.rows) * len(found.seeds)
    for column in found.columns:
        attack = build("attack", column.attack)
        for part in attack.parts(10, column.threat.model()):
            assert column.threat.norm in part.norms


def test_the_command_makes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustkit.cli import app

    (tmp_path / "small_tables").mkdir()
    (tmp_path / "small_tables" / "__init__.py").touch()
    (tmp_path / "small_tables" / "small.toml").write_text(TABLE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry("table", "small", "small_tables:small.toml", "t", "t")
    monkeypatch.setitem(installed().entries, ("table", "small"), entry)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            app(["reproduce", *arguments], prog_name="robustkit")
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out, told.err

    code, out, _ = run()
    assert code == 0
    assert "small: small\n  1  plain, short\n  2  plain, long\n" in out
    code, out, err = run("small", "--rows", "1", "--seeds", "3", "--limit", "30")
    assert code == 0, err
    assert "run 1 of 1: plain, short, seed 3" in err
    assert "cut: seeds 3 instead of 0, 1" in out
    folder = tmp_path / "runs" / "small"
    assert (folder / "table.md").exists()
    assert RunFolder(folder / "plain-short-seed3").model.exists()
    assert run("smal")[::2] == (2, "robustkit: unknown table 'smal'; did you mean 'small'?\n")
    code, _, err = run("small", "--seeds", "x")
    assert (code, err) == (2, "robustkit: --seeds: 'x' is not a whole number from 0 on\n")
