"""What an evaluation is of: equal model, attack, threat, seed and points give equal hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustkit.interfaces import Attack
from robustkit.records import Threat, digest
from robustkit.threat import ThreatModel

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


def hash_module(module: nn.Module) -> str:
    """Give 16 hexadecimal digits of a module's kinds of layers, weights and buffers."""
    seen = hashlib.sha256()
    for name, part in module.named_modules():
        seen.update(f"{name}:{type(part).__qualname__}({part.extra_repr()});".encode())
    for group in (module.named_parameters(), module.named_buffers()):
        for name, tensor in group:
            _feed(seen, name, tensor)
    return seen.hexdigest()[:16]


def hash_tensors(*tensors: Tensor) -> str:
    """Give 16 hexadecimal digits of tensors' types, shapes and values."""
    seen = hashlib.sha256()
    for tensor in tensors:
        _feed(seen, "", tensor)
    return seen.hexdigest()[:16]


def hash_evaluation(
    attack: Attack, threat: ThreatModel, n: int, pixels: str, origin: Mapping[str, Any]
) -> str:
    """Give the 8 hexadecimal digits that name an evaluation's files.

    `pixels` is the hash of its n points, `origin` what its record says of model, data and seed.
    """
    points = {"n": n, "pixels": pixels, "data": origin["data"], "part": origin["part"]}
    return digest(
        {
            "attack": attack.dump(),
            "threat": Threat.of(threat).model_dump(mode="json", exclude_none=True),
            "seed": origin["seed"],
            "points": points,
            "model": origin["model_hash"],
            **({"eot": origin["eot"]} if origin.get("eot", 1) > 1 else {}),
        }
    )


def _feed(seen: Hash, name: str, tensor: Tensor) -> None:
    seen.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)};".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        seen.update(flat.view(torch.uint8).numpy().tobytes())
