"""The device that computes, and its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from robustkit.engine.device import keep_memory
if {kept}:
    keep_memory()
def fill():
    for _ in range(20):
        torch.empty(64, 2**18).fill_(1)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="GNU's malloc only")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(kept=kept)]))
        for kept in (False, True)
    )
    assert kept < given_back / 10
