"""The built wheel carries what the tree has: plugins, recipes, zoo, templates, type marker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"robustkit": "robustkit", "plugins": "robustkit_plugins", "model_zoo": "robustkit_zoo"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy, out = tmp_path_factory.mktemp("tree") / "tree", tmp_path_factory.mktemp("wheel")
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, copy]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_tree(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for folder, package in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert "robustkit/py.typed" in held


def test_the_installed_wheel_finds_its_plugins_recipes_and_zoo(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "import robustkit; from robustkit.catalog import installed; from robustkit.cli.zoo import cards\n"
        "c = installed(); assert not c.problems, c.problems\n"
        "print(robustkit.__file__, *c.plugins, *cards())\n"
        "[c.text(k, e.name) for k in ('recipe', 'table') for e in c.of_kind(k)]\n"
        "[c.load(k, n) for k, n in c.entries if k in ('loss', 'attack', 'trainer', 'model')]\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert str(tmp_path) in run.stdout
    assert "policy-gradient" in run.stdout


def test_version_is_written_once_more_only() -> None:
    import tomllib

    import robustkit

    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        == robustkit.__version__
    )
