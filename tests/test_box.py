"""The box off and on, from the command line to the records and what a user reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from robustkit import recipe
from robustkit.arrays import Gallery
from robustkit.cli import app
from robustkit.records import RunFolder, RunRecord

TINY = ["--set", "model=mlp", "--set", "model.hidden=[32]", "--set", "fit.limit=300"]
OPEN = (-math.inf, math.inf)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def train(out: Path, *arguments: str | Path) -> RunFolder:
    done = run("train", *arguments, "--out", out)
    assert done.exit_code == 0, done.output
    return RunFolder(out)


def box_of(folder: RunFolder) -> tuple[float, float]:
    threat = RunRecord.read(folder.record).threat
    return threat.low, threat.high


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Adversarial training in l2 that may leave [0, 1]."""
    basic = ["--plugin", "adversarial", "--epochs", "2", "--norm", "l2", "--eps", "1", *TINY]
    short = ["--set", "attack.steps=2", "--set", "select.attack=fgsm"]
    return train(tmp_path_factory.mktemp("runs") / "opened", *basic, *short, "--box", "off")


def test_a_run_without_the_box_says_so_and_is_made_and_gone_on_with_from_its_recipe(
    opened: RunFolder, tmp_path: Path
) -> None:
    threat = recipe.validate(recipe.read(opened.recipe)).threat
    assert (threat.low, threat.high) == box_of(opened) == OPEN
    assert run("train", "--resume", "--out", opened.path).exit_code == 0
    again = train(tmp_path / "again", "--recipe", opened.recipe)
    assert again.recipe.read_text() == opened.recipe.read_text()
    closed = train(tmp_path / "closed", "--recipe", opened.recipe, "--box", "on")
    assert box_of(closed) == (0, 1)
    by_keys = ["--set", "threat.low=-inf", "--set", "threat.high=inf"]
    keyed = train(tmp_path / "keyed", "--recipe", closed.recipe, *by_keys)
    assert keyed.recipe.read_text() == opened.recipe.read_text()


def test_eval_takes_the_models_box_or_what_is_said(opened: RunFolder, tmp_path: Path) -> None:
    attacks = ["--attack", "fgsm,pgd", "--limit", "60", "--out", str(tmp_path)]
    own = run("eval", opened.path, *attacks)
    assert own.exit_code == 0, own.output
    assert "l2 1, no box" in own.stdout
    both = run("eval", opened.path, *attacks, "--box", "on")
    found = {
        (r.attack["name"], r.threat.model().terms): r for r, _ in RunFolder(tmp_path).results()
    }
    assert set(found) == {(name, box) for name in ("fgsm", "pgd") for box in ("", ", no box")}
    for name in ("fgsm", "pgd"):
        assert found[name, ", no box"].robust.count <= found[name, ""].robust.count
        for box in ("", ", no box"):
            path = RunFolder(tmp_path).gallery(found[name, box].stem)
            outside = abs(Gallery.read(path).x_adv - 0.5).max() > 0.5
            assert outside == bool(box)
    rows = [line for line in both.stdout.splitlines() if line.startswith("worst case")]
    assert len(rows) == 2
    assert run("report", tmp_path).exit_code == 0
    page = RunFolder(tmp_path).report.read_text("utf-8")
    assert page.count("outside [0, 1] are drawn as 0 or 1") == 2


@pytest.mark.parametrize("command", [["train", "--plugin", "standard"], ["eval"]])
def test_another_box_is_refused_in_a_line(opened: RunFolder, command: list[str]) -> None:
    place = [str(opened.path)] if command == ["eval"] else []
    refused = run(*command, *place, "--box", "of")
    assert refused.exit_code == 2
    assert refused.stderr == "robustkit: --box 'of' is neither on nor off\n"
