"""Our AutoAttack against the reference's verdicts, where both are at hand.

ROBUSTKIT_REFERENCE names the folder of reference models and verdicts, ROBUSTKIT_DATA the images.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
NAMES = ["mnist-lenet-at.linf-0.25", "mnist-lenet-at.l2-2.0"]


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    # As where it runs as a script: its neighbours are found by their names.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
        return importlib.import_module("agreement")


def folder(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"set {variable} to run this test")
    return Path(os.environ[variable])


@pytest.mark.parametrize("name", NAMES)
def test_verdicts_agree(
    name: str, agreement: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, data = folder("ROBUSTKIT_REFERENCE"), folder("ROBUSTKIT_DATA")
    monkeypatch.setattr(agreement, "RESULTS", tmp_path)
    threads = torch.get_num_threads()
    try:
        ours: dict[str, Any] = agreement.run(reference, data, name, 0)
    finally:
        torch.set_num_threads(threads)
    theirs = agreement.reference_runs(reference, name)
    found = agreement.compare([ours], theirs)
    assert found["differ"][0] <= 0.01 * ours["n"]
    assert min(found["theirs"]) - 0.5 <= found["ours"][0] <= max(found["theirs"]) + 0.5
