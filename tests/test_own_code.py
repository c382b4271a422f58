"""The user's own function as an architecture: from the command line, and from nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from robustkit.catalog import OWN_CODE, allow_code, installed
from robustkit.cli import app
from robustkit.cli.zoo import weights_of
from robustkit.errors import BadValueError, UnknownNameError
from robustkit.models import load_model
from robustkit.models.callables import architecture
from robustkit.models.files import Given
from robustkit.records import RunFolder

CODE = """
from pathlib import Path
from torch import nn

def make(shape, classes):
    pixels = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.ReLU(), nn.Linear(16, classes))

def number(shape, classes):
    return classes

def narrow(classes):
    return nn.Flatten()

Path("IMPORTED").touch()
value = 3
"""
SHORT = ["--set", "fit.limit=300", "--set", "fit.epochs=2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside a module of the user's; what is allowed is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    monkeypatch.setenv(OWN_CODE, "")
    (tmp_path / "nets.py").write_text(CODE)
    before = dict(installed().entries)
    yield tmp_path
    installed().entries.clear()
    installed().entries.update(before)
    architecture.cache_clear()
    sys.modules.pop("nets", None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: object) -> str:
    result = run(*arguments)
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(lines) == 1, lines
    return lines[0]


def forget(here: Path) -> None:
    """Start a new process, as it were."""
    installed().entries.pop(("model", "nets:make"), None)
    (here / "IMPORTED").unlink()
    architecture.cache_clear()
    sys.modules.pop("nets")


def test_trained_and_evaluated_only_where_it_is_named_again(here):
    done("train", "--plugin", "standard", "--model", "nets:make", *SHORT, "--out", "run")
    assert 'name = "nets:make"' in RunFolder(here / "run").recipe.read_text()
    evaluate = ["eval", "run", "--attack", "fgsm", "--limit", "20", "--device", "cpu"]
    done(*evaluate, "--arch", "nets:make")
    forget(here)
    line = refused(*evaluate)
    assert "'nets:make', code that no file may have run: give --arch nets:make" in line
    assert "--arch nets:make" in refused("models", "run")
    again = ["train", "--recipe", "run/recipe.toml", "--out", "again"]
    assert "no file may name code; if it is yours, say so: --model nets:make" in refused(*again)
    assert "--model nets:make" in refused("train", "--resume", "--out", "run")
    assert not (here / "IMPORTED").exists()
    assert "leave --arch out" in refused(*evaluate, "--arch", "cnn")
    done(*again, "--model", "nets:make")
    assert "architecture nets:make" in done("models", "run", "--arch", "nets:make").stdout
    one, two = ((here / name / "model.pt").read_bytes() for name in ("run", "again"))
    assert one == two or torch.equal(*(
        load_model(here / name / "model.pt", "cpu", Given(architecture("nets:make")()))
        .module.net[1].weight for name in ("run", "again")
    ))  # fmt: skip


@pytest.mark.slow
def test_in_several_processes(here):
    done("train", "--plugin", "standard", "--model", "nets:make", *SHORT, "--out", "run",
         "--processes", "2")  # fmt: skip
    assert (here / "run" / "model.pt").exists()
    result = done("eval", "run", "--arch", "nets:make", "--attack", "fgsm", "--limit", "60",
                  "--device", "cpu", "--processes", "2")  # fmt: skip
    assert "60" in result.stdout


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("nets:maek", ["'maek' does not exist", "did you mean 'make'"]),
        ("nets:value", ["'value' is not callable"]),
        ("nest:make", ["module 'nest' does not import", "No module named 'nest'"]),
        ("nets:number", ["number((1, 8, 8), 10) gives int, not a module"]),
        ("nets:narrow", ["narrow((1, 8, 8), 10) raises TypeError", "called with the shape"]),
    ],
)
def test_what_is_no_architecture_is_one_line(here, target, parts):
    line = refused("train", "--plugin", "standard", "--model", target, *SHORT, "--out", "run")
    assert all(part in line for part in (target, *parts)), line
    assert not (here / "run" / "model.pt").exists()


def test_names_with_a_colon_count_nowhere_else(here):
    with pytest.raises(UnknownNameError, match="no file may name code"):
        installed().build("model", {"name": "nets:make"})
    with pytest.raises(UnknownNameError):
        installed().build("attack", "nets:make")
    assert not (here / "IMPORTED").exists()
    with pytest.raises(BadValueError, match="'nowhere' does not import"):
        allow_code("nowhere:make")
    assert ("model", "nowhere:make") not in installed().entries


# Bare weights and programs from the command line


def test_bare_weights_from_the_command_line(here):
    zoo = load_model(weights_of("digits-policy-gradient"))
    weights = zoo.module.state_dict()
    save_file(weights, here / "x.safetensors")
    common = ["--dataset", "digits", "--attack", "pgd", "--limit", "64", "--device", "cpu"]
    common += ["--norm", "linf", "--eps", "0.2", "--set", "pgd.steps=5"]
    arch = ["--arch", "cnn", "--set", "model.dropout=0"]
    done("eval", "x.safetensors", *common, *arch, "--out", "one")
    done("eval", "zoo:digits-policy-gradient", *common, "--out", "two")
    ((one, of_one),), ((two, of_two),) = (RunFolder(here / f).results() for f in ("one", "two"))
    assert one.model_hash == two.model_hash
    assert one.robust.count == two.robust.count < one.clean.count
    assert (of_one.adversarial_predictions == of_two.adversarial_predictions).all()
    width = ["--arch", "cnn", "--set", "model.width=2"]
    assert "does not fit architecture 'cnn'" in refused("eval", "x.safetensors", *common, *width)
    assert "--arch NAME" in refused("eval", "x.safetensors", *common)
    assert "--arch, which is not given" in refused("eval", "x.safetensors", *common, *arch[2:])
    assert "'cnm'" in refused("eval", "x.safetensors", *common, "--arch", "cnm")
    assert "'a,b'" in refused("eval", "x.safetensors", *common, *arch, "--mean", "a,b")
    assert "--dataset" in refused("eval", "x.safetensors", *arch)
    assert "--norm and --eps" in refused("eval", "x.safetensors", *arch, "--dataset", "digits")


def test_your_own_code_for_bare_weights(here):
    sys.path.insert(0, str(here))
    net = architecture("nets:make")().build((1, 8, 8), 10, [0.0], [1.0]).net
    torch.save({"state_dict": net.state_dict()}, here / "x.pth")
    common = ["--dataset", "digits", "--attack", "fgsm", "--limit", "20", "--device", "cpu"]
    common += ["--norm", "linf", "--eps", "0.1", "--arch", "nets:make"]
    assert "give --mean and --std" in refused("eval", "x.pth", *common)
    done("eval", "x.pth", *common, "--mean", "0.3", "--std", "0.37")
