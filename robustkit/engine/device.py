"""The device that computes."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch

from robustkit.errors import BadValueError


def pick_device(name: str) -> torch.device:
    """Give a device by name ("auto": the graphics card where there is one, else the processor).

    Raises BadValueError for one that is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise BadValueError(f"device '{name}' is not there; give auto, cpu or cuda") from None
    return device


def shared(device: torch.device, processes: int) -> list[torch.device]:
    """Give the device of each of several processes: of graphics cards one each.

    Raises BadValueError where there are too few.
    """
    if processes < 1:
        raise BadValueError(f"cannot work in {processes} processes; give at least 1")
    if processes == 1 or device.type != "cuda":
        return [device] * processes
    if processes > torch.cuda.device_count():
        raise BadValueError(
            f"{processes} processes need as many GPUs, and {torch.cuda.device_count()} are there"
        )
    return [torch.device("cuda", place) for place in range(processes)]


@cache
def keep_memory() -> None:
    """Let the C library keep freed memory for the next step, where it is GNU's.

    It gives large blocks back to the system at once; asking for them again costs a quarter of a
    small network's step on a processor.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    trim_threshold, mmap_max = -1, -4  # the numbers of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
