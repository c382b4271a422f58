"""The device that computes."""

from __future__ import annotations

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
