"""Where a number comes from: this environment, as records keep it."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from robustkit import __version__
from robustkit.records import Provenance

PACKAGES = ("torch", "torchvision", "numpy", "lightning-fabric", "adversarial-robustness-toolbox")


def now() -> str:
    """Give the time, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(
    device: torch.device | str,
    started: str,
    seconds: float,
    processes: int = 1,
    threads: int | None = None,
) -> Provenance:
    """Describe this environment; `started` comes from `now`, `seconds` were spent since.

    Without `threads` (of each process) they are this process's.
    """
    return Provenance(
        versions=versions(),
        device=device_name(torch.device(device)),
        commit=commit(),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        started=started,
        seconds=round(seconds, 3),
        threads=threads or torch.get_num_threads(),
        processes=processes,
    )


@cache
def versions() -> dict[str, str]:
    """Give the versions of robustkit, Python and the packages that numbers depend on."""
    found = {"robustkit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def device_name(device: torch.device) -> str:
    """Name a device as its maker does, after its kind: "cpu (...)"."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({_processor()})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def commit() -> str:
    """Give the git commit of the working folder, "-dirty" where files differ; "" outside of one."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()
