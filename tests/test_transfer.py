"""robustkit attack and eval --from as a user runs them, on the embedded digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from robustkit.cli import app
from robustkit.data.digits import Digits
from robustkit.records import EvalRecord, RunFolder
from robustkit.sets import AdversarialSet

ZOO = "zoo:digits-policy-gradient"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result, *parts: str) -> None:
    """Check exit code 2 and one line on stderr that names every part."""
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    (line,) = (line for line in result.stderr.splitlines() if line.strip())
    for part in parts:
        assert part in line, line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    tiny = ["--set", "model.name=mlp", "--set", "model.hidden=[16]", "--set", "fit.limit=400"]
    done("train", "--plugin", "standard", "--epochs", "3", "--out", folder, *tiny)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "made.npz"
    asked = ["--attack", "pgd", "--set", "pgd.steps=3", "--eps", "0.1", "--limit", "60"]
    shown = done("attack", ZOO, *asked, "--seed", "3", "--out", path)
    assert f"next: robustkit eval OTHER --from {path}" in shown
    assert f"fools {ZOO} on " in shown
    return path


def evaluated(folder: Path) -> EvalRecord:
    ((record, _),) = RunFolder(folder).results()
    return record


def test_a_set_says_what_it_was_made_from(made: Path) -> None:
    found = AdversarialSet.read(made)
    record = found.record
    assert record is not None and found.labels is not None
    assert (record.model, record.data["name"], record.seed, record.limit) == (ZOO, "digits", 3, 60)
    assert (record.attack["name"], record.attack["steps"]) == ("pgd", 3)
    assert (record.threat.norm, record.threat.eps) == ("linf", 0.1)
    assert len(found) == record.clean.n == 60
    assert record.provenance.versions["torch"]


def test_eval_shows_a_set_to_another_model(made: Path, trained: Path, tmp_path: Path) -> None:
    shown = done("eval", trained, "--from", made, "--out", tmp_path)
    assert "pgd made on" in shown
    record, found = evaluated(tmp_path), AdversarialSet.read(made)
    assert record.attack["digest"] == found.digest
    assert record.transferred and record.valid
    assert (record.data, record.threat.eps, record.clean.n) == ({"name": "digits"}, 0.1, 60)
    assert record.remarks[0] == f"images were made on '{ZOO}' by pgd (linf 0.1), not on this model"
    done("report", tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "not on this model" in page
    assert record.remarks[0] in (tmp_path / "report.md").read_text("utf-8")


def test_on_its_own_model_a_set_counts_as_its_record_says(made: Path, tmp_path: Path) -> None:
    done("eval", ZOO, "--from", made, "--out", tmp_path)
    record, source = evaluated(tmp_path), AdversarialSet.read(made).record
    assert source is not None
    assert (record.clean, record.robust) == (source.clean, source.robust)
    assert not record.transferred


def test_limit_takes_the_first_points_and_agreeing_flags_pass(
    made: Path, trained: Path, tmp_path: Path
) -> None:
    agreeing = ["--dataset", "digits", "--norm", "inf", "--eps", "0.1", "--box", "on"]
    done("eval", trained, "--from", made, "--limit", "7", *agreeing, "--out", tmp_path)
    ((_, points),) = RunFolder(tmp_path).results()
    assert points.ids.tolist() == AdversarialSet.read(made).ids[:7].tolist()


def test_a_set_made_without_the_box(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    asked = ["--attack", "fgsm", "--eps", "0.3", "--box", "off", "--limit", "40"]
    done("attack", trained, *asked, "--out", path)
    assert AdversarialSet.read(path).x_adv.min() < 0
    done("eval", trained, "--from", path, "--out", tmp_path / "run")
    record, source = evaluated(tmp_path / "run"), AdversarialSet.read(path).record
    assert source is not None and source.threat.low == -np.inf
    assert record.valid and record.robust == source.robust
    refused(run("eval", trained, "--from", path, "--box", "on"), "--box on", "no box")


def test_a_set_of_some_classes(trained: Path, tmp_path: Path) -> None:
    tiny = ["--set", "model.name=mlp", "--set", "model.hidden=[8]", "--epochs", "1"]
    done("train", "--plugin", "standard", "--classes", "0,1", *tiny, "--out", tmp_path / "two")
    done("attack", tmp_path / "two", "--attack", "fgsm", "--out", tmp_path / "set.npz")
    shown: list[str | Path] = [
        "eval",
        tmp_path / "two",
        "--from",
        tmp_path / "set.npz",
        "--out",
        tmp_path / "out",
    ]
    done(*shown, "--classes", "0,1", "--dataset", "digits")
    assert evaluated(tmp_path / "out").classes == ("0", "1")
    refused(run(*shown, "--classes", "1,0"), "--classes 1,0", "subset")
    refused(run("eval", trained, "--from", tmp_path / "set.npz"), "2", "10")


def test_images_of_another_tool(trained: Path, tmp_path: Path) -> None:
    test = Digits().split("test")
    x = test.take(torch.arange(30)).numpy()
    x_adv = np.clip(x.astype(int) + 20, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "foreign.npz", x_adv=x_adv)
    shown: list[str | Path] = [
        "eval",
        trained,
        "--from",
        tmp_path / "foreign.npz",
        "--out",
        tmp_path / "run",
    ]
    assert "fixed images" in done(*shown, "--eps", "0.1")
    record = evaluated(tmp_path / "run")
    assert record.valid and record.clean.n == 30
    np.savez(tmp_path / "foreign.npz", x_adv=x_adv, labels=test.labels[:30].numpy() + 1)
    refused(run(*shown), "other data", "30 of its 30 labels")
    np.savez(tmp_path / "foreign.npz", x_adv=x_adv[:, :, :5])
    refused(run(*shown), "1x5x8", "1x8x8")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--attack", "pgd"], ["--attack 'pgd'", "--from"]),
        (["--set", "pgd.steps=3"], ["'pgd.steps=3'", "--from"]),
        (["--dataset", "mnist"], ["--dataset mnist", "digits", "made.npz"]),
        (["--norm", "l2"], ["--norm l2", "linf 0.1"]),
        (["--norm", "l7"], ["'l7'"]),
        (["--eps", "0.2"], ["--eps 0.2", "linf 0.1"]),
        (["--eps", "0.1,0.2"], ["--eps 0.1,0.2"]),
        (["--box", "off"], ["--box off"]),
        (["--classes", "0,1"], ["--classes 0,1"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_flags_that_say_otherwise_than_the_set(
    flags: list[str], parts: list[str], made: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused(run("eval", trained, "--from", made, *flags, "--out", out), *parts)
    assert not out.exists()


def test_bad_files_are_named(trained: Path, tmp_path: Path) -> None:
    refused(run("eval", trained, "--from", tmp_path / "absent.npz"), "absent.npz", "No such file")
    (tmp_path / "bad.npz").write_text("<!DOCTYPE html>")
    refused(run("eval", trained, "--from", tmp_path / "bad.npz"), "bad.npz", "zip")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ([], ["--attack"]),
        (["--attack", "pgd,fgsm"], ["pgd,fgsm", "2 attacks"]),
        (["--attack", "pdg"], ["'pdg'", "'pgd'"]),
        (["--attack", "pgd", "--eps", "0.1,0.2"], ["0.1,0.2", "2 sizes"]),
        (["--attack", "pgd", "--eps", "0:0.2:0.1"], ["3 sizes"]),
        (["--attack", "pgd", "--eps", "inf"], ["'pgd'", "finite eps"]),
        (["--attack", "pgd", "--norm", "l2"], ["--eps"]),
        (["--attack", "pgd", "--dataset", "digitz"], ["'digitz'", "'digits'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_word_to_attack(
    flags: list[str], parts: list[str], trained: Path, tmp_path: Path
) -> None:
    refused(run("attack", trained, *flags, "--out", tmp_path / "set.npz"), *parts)
    assert not list(tmp_path.iterdir())


def test_where_a_set_goes(made: Path, trained: Path, tmp_path: Path) -> None:
    asked: tuple[Any, ...] = ("attack", trained, "--attack", "fgsm", "--limit", "20")
    refused(run(*asked), "--out")
    refused(run(*asked, "--out", tmp_path), "folder")
    refused(run(*asked, "--out", made / "set.npz"), "is a file")
    refused(run(*asked, "--out", made), str(made), "--fresh")
    done(*asked, "--out", tmp_path / "set.npz")
    done(*asked, "--out", tmp_path / "set.npz", "--resume")
    refused(run(*asked, "--seed", "1", "--out", tmp_path / "set.npz", "--resume"), "another set")
    done(*asked, "--seed", "1", "--out", tmp_path / "set.npz", "--fresh")
