"""Columns of a table whose images are made once, on another run, and shown to every model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustkit import tables
from robustkit.catalog import Entry, build, installed
from robustkit.engine import reproduce, tabulate
from robustkit.engine.loop import Silent
from robustkit.engine.provenance import now
from robustkit.engine.reproduce import Cut, Job, Run
from robustkit.engine.selection import Measured, Selection
from robustkit.engine.work import Unwatched
from robustkit.errors import BadValueError, TrainingStoppedError
from robustkit.models.files import load_model
from robustkit.records import Rate, RunFolder
from robustkit.report import table as report
from robustkit.sets import AdversarialSet
from robustkit.tables import Plan, TableRecord

TABLE = """
title = "fixed images"
set = { "model" = "mlp", "model.hidden" = [32], "fit.limit" = 300, "select.attack" = "fgsm" }

[[columns]]
name = "Fixed"
attack = "fgsm"
threat = { norm = "l2", eps = 1.5, low = -inf, high = inf }
made_on = { row = "Normal", seed = 100 }

[[columns]]
name = "FGSM"
attack = "fgsm"
threat = { norm = "l2", eps = 1.5, low = -inf, high = inf }

[[columns]]
name = "PGD, made"
attack = { name = "pgd", steps = 2 }
threat = { norm = "l2", eps = 0.5 }
made_on = { row = "Normal", seed = 100 }
limit = 50

[[rows]]
name = "Normal"
recipe = "standard"
set = { "fit.epochs" = 2 }

[[rows]]
name = "Longer"
recipe = "standard"
set = { "fit.epochs" = 4 }
"""


def plan() -> Plan:
    return tables.parse(TABLE, "small")


def prepared(cut: Cut, out: Path) -> list[reproduce.Source]:
    made = []
    for job in reproduce.sources(plan(), cut, out):
        made.append((job, job.train("cpu", Silent())))
        job.craft("cpu", Unwatched())
    return made


def run(job: Job) -> Run:
    return job, job.train("cpu", Silent()), job.evaluate("cpu", Unwatched())


def shown_by_hand(job: Job, path: Path) -> tuple[int, int]:
    """Count the set's points that a model gets right both clean and as the set has them."""
    made, module = AdversarialSet.read(path), load_model(job.folder.model).module
    test = build("dataset", job.recipe.data).split("test")
    x, y = test.take(torch.from_numpy(made.ids)) / 255, torch.from_numpy(made.labels)
    with torch.no_grad():
        clean, fixed = (module(z.float()).argmax(1) == y for z in (x, torch.tensor(made.x_adv)))
    return int((clean & fixed).sum()), len(made)


def test_a_column_on_an_unknown_row_is_refused_in_a_line() -> None:
    with pytest.raises(BadValueError) as refused:
        tables.parse(TABLE.replace('row = "Normal"', 'row = "Nrmal"', 1), "small")
    line = "column 'Fixed' is made on no row: 'Nrmal'; did you mean 'Normal'?"
    assert str(refused.value).endswith(line)
    assert "\n" not in str(refused.value)


def test_the_source_is_one_more_run_that_cuts_cut_too(tmp_path: Path) -> None:
    (source,) = reproduce.sources(plan(), Cut(), tmp_path)
    assert (source.row.name, source.recipe.seed, source.recipe.fit.epochs) == ("Normal", 100, 2)
    assert source.folder.path == tmp_path / "normal-seed100"
    assert [(c.name, c.limit) for c in source.columns] == [("Fixed", None), ("PGD, made", 50)]
    assert source.folder not in [job.folder for job in reproduce.jobs(plan(), Cut(), tmp_path)]
    cut = Cut(rows=("2",), seeds=(3,), epochs=2, limit=20, settings=(("optimizer.lr", 0.5),))
    (short,) = reproduce.sources(plan(), cut, tmp_path)
    assert (short.recipe.seed, short.recipe.fit.epochs, short.recipe.optimizer.lr) == (100, 1, 0.5)
    assert [column.limit for column in short.columns] == [20, 20]
    with pytest.raises(BadValueError, match="--epochs 5: give 1 to 4"):
        reproduce.sources(plan(), Cut(epochs=5), tmp_path)


def test_every_model_is_shown_the_same_images(tmp_path: Path) -> None:
    cut = Cut(limit=80)
    made_on = prepared(cut, tmp_path)
    runs = [run(job) for job in reproduce.jobs(plan(), cut, tmp_path)]
    for job, _, rates in runs:
        for column, file, n in (("Fixed", "fixed", 80), ("PGD, made", "pgd-made", 50)):
            found = rates[column]
            assert (found.count, found.n) == shown_by_hand(job, tmp_path / f"{file}.npz")
            assert found.n == n
        # What is made on a network breaks it more than what is made on another one.
        assert rates["FGSM"].count < rates["Fixed"].count
    # The source itself, were it a row, would see its own attack's images.
    (source,) = reproduce.jobs(plan(), Cut(rows=("1",), seeds=(100,), limit=80), tmp_path)
    own = run(source)[2]
    assert own["Fixed"] == own["FGSM"]
    record = tabulate.table("small", plan(), cut, runs, "cpu", now(), made_on)
    record.write(tmp_path / "table.json")
    assert TableRecord.read(tmp_path / "table.json") == record
    assert [row.name for row in record.rows] == ["Normal", "Longer"]
    page = report.markdown(record)
    once = "the first 80 test points, made once on Normal, seed 100"
    assert f"- Fixed: fgsm, l2 1.5, no box, {once}\n" in page
    assert "- FGSM: fgsm, l2 1.5, no box, the first 80 test points\n" in page
    assert "- PGD, made: pgd(steps=2), l2 0.5, the first 50 test points, made once on" in page


def test_a_set_is_made_again_only_where_it_is_of_another_making(tmp_path: Path) -> None:
    path = tmp_path / "fixed.npz"
    prepared(Cut(limit=20), tmp_path)
    first = path.stat().st_mtime_ns, AdversarialSet.read(path)
    prepared(Cut(limit=20), tmp_path)
    assert path.stat().st_mtime_ns == first[0]
    prepared(Cut(limit=30), tmp_path)
    larger = AdversarialSet.read(path)
    assert len(larger) == 30
    assert (larger.x_adv[:20] == first[1].x_adv).all()
    path.write_bytes(path.read_bytes()[:-50])
    prepared(Cut(limit=30), tmp_path)
    assert AdversarialSet.read(path).digest == larger.digest
    job = reproduce.sources(plan(), Cut(limit=30), tmp_path)[0]
    other = job.columns[0].model_copy(update={"attack": {"name": "pgd", "steps": 1}})
    Job(job.row, job.recipe, job.folder, (other,)).craft("cpu", Unwatched())
    again = AdversarialSet.read(path)
    assert again.record is not None
    assert again.record.attack["name"] == "pgd"
    impossible = job.columns[0].model_copy(update={"attack": {"name": "square", "queries": -1}})
    with pytest.raises(BadValueError, match="queries"):
        Job(job.row, job.recipe, job.folder, (impossible,)).craft("cpu", Unwatched())


def test_a_source_without_a_model_leaves_its_columns_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(self: Selection, epoch: int, found: Measured) -> None:
        raise TrainingStoppedError("training collapsed")

    cut = Cut(rows=("1",), epochs=2, limit=20)
    with monkeypatch.context() as patched:
        patched.setattr(Selection, "watch", watch)
        made_on = prepared(cut, tmp_path)
    runs = [run(job) for job in reproduce.jobs(plan(), cut, tmp_path)]
    record = tabulate.table("small", plan(), cut, runs, "cpu", now(), made_on)
    cells = record.rows[0].cells
    assert (cells["Fixed"].ours, cells["PGD, made"].ours) == (None, None)
    assert isinstance(cells["FGSM"].ours, Rate)
    assert "Fixed: made on Normal, seed 100: training collapsed" in record.cuts
    assert "Fixed: made on Normal, seed 100, after 1 of 2 epochs" in record.cuts


def test_the_command_makes_the_source_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustkit.cli import app

    (tmp_path / "fixed_tables").mkdir()
    (tmp_path / "fixed_tables" / "__init__.py").touch()
    (tmp_path / "fixed_tables" / "small.toml").write_text(TABLE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry("table", "small", "fixed_tables:small.toml", "t", "t")
    monkeypatch.setitem(installed().entries, ("table", "small"), entry)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        app(["reproduce", "small", "--rows", "2", "--limit", "20"], prog_name="robustkit")
    told = capsys.readouterr()
    assert not left.value.code, told.err
    folder = Path("runs/small")
    first = told.err.index("run 1 of 2, for Fixed, PGD, made: Normal, seed 100, in runs/small")
    assert first < told.err.index("run 2 of 2: Longer, seed 0")
    assert "Fixed: fgsm, l2 1.5, no box, the first 20 test points" in told.out
    assert sorted(path.name for path in folder.glob("*.npz")) == ["fixed.npz", "pgd-made.npz"]
    assert not list(RunFolder(folder / "normal-seed100").results())
    assert len(list(RunFolder(folder / "longer-seed0").results())) == 3
