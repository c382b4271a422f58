"""Foolbox's attacks, as `foolbox:NAME`; needs the extra `foolbox`."""
from __future__ import annotations
from robustkit import hookimpl
@hookimpl
def register_attacks() -> dict[str, str]:
    return {}
