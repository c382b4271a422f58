"""The evasion attacks of the Adversarial Robustness Toolbox, as `art:NAME`."""

from __future__ import annotations

from robustkit import hookimpl

from .table import TABLE


@hookimpl
def register_attacks() -> dict[str, str]:
    return {f"art:{name}": f"robustkit_plugins.art_bridge.attacks:{name}" for name in TABLE}
