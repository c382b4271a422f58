"""Everything that is installed keeps the contract of its kind; whatever is added is tested too."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustkit.catalog import KIND_CLASSES, installed
from robustkit.testing import Check, NotApplicableError, Subject, checks

CASES = [
    pytest.param(entry.kind, entry.name, check, id=f"{entry.kind}-{entry.name}-{check}")
    for kind in KIND_CLASSES
    for entry in installed().of_kind(kind)
    for check in checks(kind)
]


@pytest.mark.parametrize(("kind", "name", "check"), CASES)
def test_contract(
    kind: str, name: str, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No check reads or writes the data of whoever runs the tests.
    for folder in ("ROBUSTKIT_DATA", "ROBUSTKIT_CACHE"):
        monkeypatch.setenv(folder, str(tmp_path))
    try:
        check.run(Subject.registered_as(kind, name))
    except NotApplicableError as reason:
        pytest.skip(str(reason))


def test_every_kind_is_in_the_catalogue_and_no_plugin_is_set_aside() -> None:
    assert not installed().problems
    assert {"attack", "loss", "trainer", "model", "dataset"} <= {
        entry.kind for entry in installed().entries.values()
    }
