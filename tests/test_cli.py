"""Every command as a user runs it, on the embedded digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from robustkit.cli import app
from robustkit.records import RunFolder

TINY = ["--set", "model.name=mlp", "--set", "model.hidden=[32]", "--set", "fit.limit=400"]


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run("train", "--plugin", "policy-gradient", "--epochs", "3", "--out", folder, *TINY)
    return RunFolder(folder)


def test_train_leaves_a_whole_run_folder(trained: RunFolder) -> None:
    for path in (
        trained.recipe,
        trained.model,
        trained.checkpoint,
        trained.metrics,
        trained.record,
    ):
        assert path.stat().st_size > 0
    assert list(trained.path.glob("events.*"))
    assert [line.epoch for line in trained.epochs()] == [1, 2, 3]


def test_the_resolved_recipe_makes_the_same_run_again(trained: RunFolder, tmp_path: Path) -> None:
    from robustkit.models.files import load_model

    run("train", "--recipe", trained.recipe, "--out", tmp_path / "again")
    again = RunFolder(tmp_path / "again")
    assert again.recipe.read_text() == trained.recipe.read_text()
    first, second = (load_model(f.model, "cpu").module.state_dict() for f in (trained, again))
    assert all(first[key].equal(second[key]) for key in first)


def test_eval_takes_data_and_threat_from_the_model_and_writes_results(trained: RunFolder) -> None:
    result = run("eval", trained.model, "--attack", "fgsm,pgd", "--limit", "60")
    assert "fgsm" in result.stdout
    assert "worst" in result.stdout
    found = {record.attack["name"]: (record, points) for record, points in trained.results()}
    assert set(found) >= {"fgsm", "pgd"}
    for record, points in found.values():
        assert record.clean.n == 60 == len(points.ids)
        assert record.robust.count == points.robust.sum()
        assert 0 <= record.robust.low <= record.robust.value <= record.robust.high <= 1


def test_several_eps_in_one_call_and_options_of_attacks(trained: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("eval", trained.path, "--attack", "pgd", "--eps", "0.02,1/255", "--set", "pgd.steps=3")
    run("eval", trained.path, "--attack", "pgd", "--eps", "0.02", "--limit", "20", "--out", out)
    sizes = {round(r.threat.eps, 4) for r, _ in trained.results() if r.attack.get("steps") == 3}
    assert sizes == {0.02, round(1 / 255, 4)}
    assert len(list(RunFolder(out).results())) == 1


def test_eval_of_a_model_outside_a_run_gets_a_folder_of_its_own(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pt").write_bytes(trained.model.read_bytes())
    run("eval", "mine.pt", "--attack", "fgsm", "--limit", "20")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("eval-mine-")
    run("report", folder)
    assert (folder / "report.html").exists()


def test_a_larger_limit_extends_a_smaller_one(trained: RunFolder, tmp_path: Path) -> None:
    ids = []
    for limit in (20, 40):
        out = tmp_path / str(limit)
        run("eval", trained.model, "--attack", "fgsm", "--limit", str(limit), "--out", out)
        ((_, points),) = RunFolder(out).results()
        ids.append(points.ids)
    assert np.array_equal(ids[0], ids[1][:20])


def test_report_is_one_file_without_a_network(trained: RunFolder) -> None:
    run("eval", trained.path, "--attack", "pgd", "--limit", "30")
    result = run("report", trained.path)
    assert str(trained.report) in result.stdout
    page = trained.report.read_text("utf-8")
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "pgd" in page
    assert "pgd" in (trained.path / "report.md").read_text("utf-8")


def test_plugins_list_and_show() -> None:
    listed = run("plugins", "list").stdout
    for name in ("autoattack", "policy-gradient", "resnet18", "digits", "adversarial"):
        assert name in listed
    assert "resnet18" not in run("plugins", "list", "--kind", "attack").stdout
    shown = run("plugins", "show", "pgd").stdout
    for part in ("attack pgd", "steps = 20", "integer", ">= 1", "gradient steps", "cross-entropy"):
        assert part in shown.replace("(int", "(integer")
    both = run("plugins", "show", "policy-gradient").stdout
    assert "penalty = 1.0  (float >= 0 or list of float >= 0)" in both
    assert "path = (required)  (path)" in run("plugins", "show", "folder").stdout
    assert "epochs = 10  (int, >= 1)" in run("plugins", "show", "fit").stdout
    assert "loss policy-gradient" in both
    assert "recipe policy-gradient" in both


def test_plugins_check_passes_and_fails_with_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "passed" in run("plugins", "check", "cross-entropy").stdout


def test_data_models_and_zoo_say_what_there_is(trained: RunFolder) -> None:
    assert "digits" in run("data").stdout
    assert "360" in run("data", "digits").stdout or "1437" in run("data", "digits").stdout
    assert "lenet5" in run("models").stdout
    shown = run("models", trained.path).stdout
    assert "mlp" in shown
    assert "1x8x8" in shown
    for line in run("zoo").stdout.splitlines():
        name = line.split()[0].removeprefix("zoo:")
        assert json.loads(run("zoo", name).stdout)["recipe"]


def test_version_and_module_entry() -> None:
    for command in ([sys.executable, "-m", "robustkit"], ["robustkit"]):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        shown = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path},
        )
        assert shown.stdout.startswith("robustkit 0."), shown


def test_completion_is_offered() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "robustkit", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        # Which shell it was started from is not known everywhere.
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert "complete" in shown.stdout, shown


def test_killed_in_the_middle_an_evaluation_resumes_to_the_same_verdicts(
    trained: RunFolder, tmp_path: Path
) -> None:
    def command(out: Path, batch: int) -> list[str]:
        attack = ["--attack", "autoattack", "--limit", "40", "--set", "autoattack.version=standard"]
        base = [sys.executable, "-m", "robustkit", "eval", str(trained.model), *attack]
        return [*base, "--batch-size", str(batch), "--out", str(out), "--resume"]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, 512), check=True, capture_output=True)
    process = subprocess.Popen(command(killed, 7), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not list(killed.rglob("*.npz")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    subprocess.run(command(killed, 7), check=True, capture_output=True)
    ((_, expected),) = RunFolder(whole).results()
    ((_, resumed),) = RunFolder(killed).results()
    for name, array in vars(expected).items():
        if name not in ("forwards", "backwards"):
            assert np.array_equal(array, getattr(resumed, name), equal_nan=True), name
