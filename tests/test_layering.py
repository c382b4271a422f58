"""Imports go down only, and start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import robustkit

ROOT = Path(robustkit.__file__).parent
LAYERS = [
    {"errors"},
    {"files", "hookspecs", "threat"},
    {"arrays", "component", "builtin"},
    {"interfaces"},
    {"data", "metrics", "models", "recipes"},
    {"losses"},
    {"attacks"},
    {"trainers"},
    {"metric", "records", "recipe"},
    {"samples", "sets", "tables", "wordnet"},
    {"analysis.records", "analysis.statistics"},
    {"catalog"},
    {"analysis"},
    {"engine", "report"},
    {"testing"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
LIGHT = [
    "errors",
    "files",
    "threat",
    "component",
    "interfaces",
    "hookspecs",
    "builtin",
    "metric",
    "arrays",
    "records",
    "recipe",
]


def room(module: str) -> str:
    """The layer's name of a dotted module below robustkit."""
    return module if module in RANK else module.split(".")[0]


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """Give (line, module, is at top level) of each import that happens; types alone are free."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    top = {id(node) for node in ast.walk(tree) if node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = (
                [node.module]
                if "." in node.module
                else [f"{node.module}.{a.name}" for a in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(node.lineno, n, id(node) in top) for n in names]
    return found


def modules() -> list[Path]:
    return sorted(
        p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem not in ("__init__", "__main__")
    )


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    me = room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    assert me in RANK, f"{path} has no layer; give it one here"
    for line, module, _ in imports(path):
        if not module.startswith("robustkit."):
            continue
        other = room(module.removeprefix("robustkit."))
        if other in RANK:
            assert RANK[other] < RANK[me] or other == me, (
                f"{path.relative_to(ROOT)}:{line} imports {module}, which is not below {me}"
            )


@pytest.mark.parametrize("path", sorted((ROOT.parent / "plugins").rglob("*.py")), ids=str)
def test_plugins_import_public_names_only(path: Path) -> None:
    for line, module, _ in imports(path):
        if module.split(".")[0] == "robustkit":
            assert (
                module.removeprefix("robustkit.") in robustkit.__all__ or module == "robustkit"
            ), f"{path}:{line} imports {module}; plugins import robustkit's public names"


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_torch_in_functions_at_most(name: str) -> None:
    for line, module, top in imports(ROOT / f"{name}.py"):
        assert not (top and module.split(".")[0] == "torch"), f"{name}.py:{line}"


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", [["--help"], ["plugins", "list"], ["eval", "--help"]])
def test_start_up_imports_neither_torch_nor_numpy(command: list[str]) -> None:
    code = f"""
import robustkit.cli
sys.argv = ['robustkit', *{command!r}]
try:
    robustkit.cli.main()
except SystemExit as left:
    assert not left.code, left.code"""
    loaded = loaded_by(code)
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "torchvision", "sklearn", "matplotlib"}


def test_public_names_are_all_there() -> None:
    for name in robustkit.__all__:
        assert getattr(robustkit, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = robustkit.nothing
