"""Foolbox's attacks, as `foolbox:NAME`; they need the extra `foolbox`."""

from __future__ import annotations

from robustkit import hookimpl

from .table import TABLE


@hookimpl
def register_attacks() -> dict[str, str]:
    return {f"foolbox:{name}": f"robustkit_plugins.foolbox_bridge.attacks:{name}" for name in TABLE}
