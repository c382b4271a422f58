"""Everything that is installed keeps the contract of its kind; whatever is added is tested too."""

from __future__ import annotations

import contextlib
import re
import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from bridges import MISSES, QUICK, SEARCHES

from robustkit.catalog import KIND_CLASSES, discover, installed
from robustkit.component import Component
from robustkit.testing import Check, NotApplicableError, Subject, check, checks
from robustkit.testing.common import CHECKS as COMMON

ROOT = Path(__file__).parents[1]

LIGHT = {
    "wideresnet": {"depth": 10, "width": 1},
    "corruptions": {"severities": [3]},
    # Beyond a number of calls a check's victim calls all points done; later ones depend on others.
    "swift": {"searches": 0},
}
"""Options of what is too large to be checked as it is."""
LIGHT |= QUICK
LARGE = {f"wideresnet-{depth}-10" for depth in (16, 28, 34, 40)}


def is_search(name: str, one: Check) -> bool:
    """Another library's search costs seconds a check: test_bridges.py asks the same of each at once."""
    return ":" in name and name not in SEARCHES and one not in COMMON


def marks_of(name: str, one: Check) -> list[pytest.MarkDecorator]:
    """Say what is slow, and what a library's attack is known not to keep."""
    marks = [pytest.mark.slow] if name in LARGE or is_search(name, one) else []
    if str(one) in MISSES.get(name, {}):
        marks.append(pytest.mark.xfail(reason=MISSES[name][str(one)], strict=True))
    return marks


CASES = [
    pytest.param(
        entry.kind,
        entry.name,
        one,
        id=f"{entry.kind}-{entry.name}-{one}",
        marks=marks_of(entry.name, one),
    )
    for kind in KIND_CLASSES
    for entry in installed().of_kind(kind)
    for one in checks(kind)
]


@pytest.mark.parametrize(("kind", "name", "one"), CASES)
def test_contract(
    kind: str, name: str, one: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No check reads or writes the data of whoever runs the tests.
    for folder in ("ROBUSTKIT_DATA", "ROBUSTKIT_CACHE"):
        monkeypatch.setenv(folder, str(tmp_path))
    try:
        one.run(replace(Subject.registered_as(kind, name), options=LIGHT.get(name, {})))
    except NotApplicableError as reason:
        pytest.skip(str(reason))


def test_every_kind_is_in_the_catalogue_and_no_plugin_is_set_aside() -> None:
    assert not installed().problems
    assert {"attack", "loss", "trainer", "model", "dataset"} <= {
        entry.kind for entry in installed().entries.values()
    }


def test_the_example_distribution_keeps_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "examples" / "robustkit-noise"
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    points = project["entry-points"]["robustkit"]
    monkeypatch.syspath_prepend(str(folder))
    catalog = discover(EntryPoint(name, value, "robustkit") for name, value in points.items())
    assert not catalog.problems
    assert not [result for result in check("attack", "noise", catalog) if not result.ok]


DOCUMENTED = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text("utf-8"), re.S
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (kind, code)
        for code in DOCUMENTED
        for kind in KIND_CLASSES
        if f"(rk.{kind.title()})" in code
    ],
)
def test_the_components_of_the_documentation_keep_their_contract(kind: str, code: str) -> None:
    names: dict[str, object] = {"__name__": "documented"}
    exec(compile(code, "docs/plugins.md", "exec", dont_inherit=True), names)
    (component,) = (v for v in names.values() if getattr(v, "__module__", "") == "documented")
    assert issubclass(component, Component)  # type: ignore[arg-type]
    for one in checks(kind):
        with contextlib.suppress(NotApplicableError):
            one.run(component)


def test_the_documentation_shows_an_attack_a_loss_a_trainer_and_a_generator() -> None:
    shown = " ".join(DOCUMENTED)
    assert all(f"(rk.{kind})" in shown for kind in ("Attack", "Loss", "Trainer", "Generator"))
