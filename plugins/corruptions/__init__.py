"""The fifteen common corruptions of Hendrycks and Dietterich 2019, at five strengths."""

from __future__ import annotations

from robustkit import hookimpl


@hookimpl
def register_attacks() -> dict[str, str]:
    return {
        "corruption": "robustkit_plugins.corruptions.attacks:Corruption",
        "corruptions": "robustkit_plugins.corruptions.attacks:Corruptions",
    }
