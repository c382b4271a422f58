from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("robustkit", deadline=None)
settings.load_profile("robustkit")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _away_from_the_users_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("ROBUSTKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
