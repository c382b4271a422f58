"""Train image classifiers to be robust, attack them with the standard protocols, report numbers.

These are the names that plugins import; each is loaded when it is first used, so that importing
robustkit costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustkit.attacks.borrowed import borrow
    from robustkit.attacks.foreign import Asked, Foreign
    from robustkit.attacks.pgd import PGD
    from robustkit.component import Component, State, slot
    from robustkit.errors import BadValueError, RobustkitError, UnknownNameError
    from robustkit.hookspecs import hookimpl
    from robustkit.interfaces import (
        Architecture,
        At,
        Attack,
        Batch,
        Clock,
        Dataset,
        Generated,
        Generator,
        Images,
        Kit,
        Loss,
        Rng,
        Terms,
        Trainer,
        Victim,
    )
    from robustkit.metric import LabelMetric, find_metric
    from robustkit.threat import ThreatModel, per_point
    from robustkit.trainers.adversarial import Adversarial
    from robustkit.trainers.wrapping import Wrapping

__version__ = "0.1.0"

_HOMES = {
    "robustkit.attacks.borrowed": ("borrow",),
    "robustkit.attacks.foreign": ("Asked", "Foreign"),
    "robustkit.attacks.pgd": ("PGD",),
    "robustkit.component": ("Component", "State", "slot"),
    "robustkit.errors": ("BadValueError", "RobustkitError", "UnknownNameError"),
    "robustkit.hookspecs": ("hookimpl",),
    "robustkit.interfaces": (
        "Architecture",
        "At",
        "Attack",
        "Batch",
        "Clock",
        "Dataset",
        "Generated",
        "Generator",
        "Images",
        "Kit",
        "Loss",
        "Rng",
        "Terms",
        "Trainer",
        "Victim",
    ),
    "robustkit.metric": ("LabelMetric", "find_metric"),
    "robustkit.threat": ("ThreatModel", "per_point"),
    "robustkit.trainers.adversarial": ("Adversarial",),
    "robustkit.trainers.wrapping": ("Wrapping",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "PGD",
    "Adversarial",
    "Architecture",
    "Asked",
    "At",
    "Attack",
    "BadValueError",
    "Batch",
    "Clock",
    "Component",
    "Dataset",
    "Foreign",
    "Generated",
    "Generator",
    "Images",
    "Kit",
    "LabelMetric",
    "Loss",
    "Rng",
    "RobustkitError",
    "State",
    "Terms",
    "ThreatModel",
    "Trainer",
    "UnknownNameError",
    "Victim",
    "Wrapping",
    "__version__",
    "borrow",
    "find_metric",
    "hookimpl",
    "per_point",
    "slot",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'robustkit' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
