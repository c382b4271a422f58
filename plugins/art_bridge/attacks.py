"""The toolbox's attacks as ours: `boundary`, `hopskipjump`, ... are attributes, made when asked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from typing import Any, ClassVar, Self

import numpy as np
import torch
from art.attacks import evasion
from art.estimators.classification import PyTorchClassifier
from pydantic import model_validator
from torch import Tensor, nn

from robustkit import Asked, BadValueError, Foreign, ThreatModel, borrow

from .table import TABLE, Row

OURS = {
    *("classifier", "estimator", "targeted", "batch_size", "norm", "eps", "verbose"),
    *("summary_writer", "minimal", "eval_perform", "nb_parallel"),
}
"""Options that follow from the victim, the threat and the target, or do not matter here."""
NORMS = {"linf": np.inf, "l2": 2, "l1": 1}
STEP = 1 / 3
"""The toolbox's first step, as a share of its eps."""

# The toolbox warns by its loggers; without a handler of their own they write to the terminal.
logging.getLogger("art").addHandler(logging.NullHandler())


class Shown(nn.Module):
    """What the toolbox is shown of a model: logits of float32 images, or probabilities."""

    def __init__(self, asked: nn.Module, probabilities: bool) -> None:
        super().__init__()
        self.asked, self.probabilities = asked, probabilities

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.asked(x.float())
        return logits.softmax(1) if self.probabilities else logits


def classifier(model: nn.Module, x: Tensor, classes: int, bounds: tuple[float, float]) -> Any:
    """Give a model of images like x (1, C, H, W) as the toolbox's classifier, on their device."""
    made = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=bounds,
        device_type="cpu" if x.device.type == "cpu" else "gpu",
    )
    made._device = x.device
    return made


class ToolboxAttack(Foreign):
    """An attack of the Adversarial Robustness Toolbox."""

    row: ClassVar[Row]
    original: ClassVar[type]

    @model_validator(mode="after")
    def _accepted(self) -> Self:
        """Let the toolbox look at the options before anything is attacked."""
        x = torch.zeros(1, 3, 8, 8)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        threat = ThreatModel(self.norms[0], 1.0)  # type: ignore[arg-type]
        try:
            self._made(classifier(model, x, 4, (0.0, 1.0)), threat, targeted=False)
        except Exception as error:  # of whatever kind the toolbox's checks raise
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadValueError(
                f"the toolbox refuses the options of attack '{self.name}': {line}"
            ) from None
        return self

    def find(self, asked: Asked) -> Tensor:
        shown = Shown(asked, self.row.probabilities).eval()
        estimator = classifier(shown, asked.x, asked.classes, asked.bounds)
        attack = self._made(estimator, asked.threat, targeted=asked.target is not None)
        y = None
        if asked.target is not None:
            y = np.eye(asked.classes, dtype=np.float32)[asked.target.cpu().numpy()]
        with mended(self.original):
            found = attack.generate(asked.x.cpu().numpy(), y)
        return torch.as_tensor(np.asarray(found))

    def _made(self, estimator: Any, threat: ThreatModel, targeted: bool) -> Any:
        """Construct the toolbox's attack from our options, the threat's, and what is given."""
        known = signature(self.original).parameters
        own = {o: getattr(self, o) for o in known if o in type(self).model_fields}
        ours = {
            "norm": NORMS.get(threat.norm),
            "eps": threat.eps,
            "targeted": targeted,
            "verbose": False,
            **self.row.given,
        }
        if "eps_step" in own and own["eps_step"] is None:
            own["eps_step"] = STEP * threat.eps
        return self.original(estimator, **{k: v for k, v in ours.items() if k in known} | own)

    def remarks(self, classes: int, threat: ThreatModel) -> Sequence[str]:
        return (f"{self.name} {self.row.remark}",) if self.row.remark else ()


@cache
def attack_class(name: str) -> type[Foreign]:
    """Make the class of a row of the table."""
    row = TABLE[name]
    original = getattr(evasion, row.original)
    known = signature(original).parameters
    return borrow(
        ToolboxAttack,
        __name__,
        name,
        [original],
        OURS - row.kept | row.given.keys(),
        {
            "name": f"art:{name}",
            "norms": row.norms,
            "minimal": row.minimal,
            "weak": row.weak,
            "targeted": row.targeted and "targeted" in known,
            "row": row,
            "original": original,
        },
        defaults={"eps_step": None, **row.defaults},
        absent="a third of eps",
    )


def __getattr__(name: str) -> type[Foreign]:
    if name not in TABLE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return attack_class(name)


class _Random:
    def __getattr__(self, name: str) -> Any:
        return getattr(np.random, name)

    def RandomState(self) -> np.random.RandomState:  # noqa: N802 - numpy's name
        return np.random.RandomState(np.random.randint(2**31))


class _Numpy:
    random = _Random()
    mat = staticmethod(np.asmatrix)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def save(self, *_: object) -> None:
        pass


@contextmanager
def mended(original: type) -> Iterator[None]:
    """Lend an attack's module a numpy that mends what the toolbox gets wrong.

    Boundary and HopSkipJump would seed themselves from the clock; GeoDA leaves a file in the
    folder that it is called from, and calls what numpy 2 no longer has.
    """
    module: Any = sys.modules[original.__module__]
    module.np = _Numpy()
    try:
        yield
    finally:
        module.np = np
