"""Where the results of benchmarks go, and what each of them says of what it was measured on."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def device_name(device: torch.device, threads: int) -> str:
    """Say what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"cpu ({platform.machine()}, {capability}), threads: {threads}"


def commit(checkout: Path = RESULTS) -> str:
    """Give the commit of a checkout: robustkit's own, unless another is named."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
