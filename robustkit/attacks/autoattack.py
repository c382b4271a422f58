"""AutoAttack: the standard ensemble by which the field compares robustness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from robustkit.attacks.apgd import APGDCE, APGDDLR, APGDTargeted
from robustkit.attacks.ensemble import Ensemble
from robustkit.attacks.fab import FAB, FABTargeted
from robustkit.attacks.square import Square
from robustkit.interfaces import Attack
from robustkit.threat import ThreatModel

PASSES = 20
"""Over which version "rand" averages each look at a point."""

VERSIONS: dict[str, tuple[Attack, ...]] = {
    "standard": (APGDCE(), APGDTargeted(), FABTargeted(), Square()),
    "plus": (
        APGDCE(restarts=5),
        APGDDLR(restarts=5),
        FAB(restarts=5),
        Square(),
        APGDTargeted(),
        FABTargeted(),
    ),
    "rand": (APGDCE(eot=PASSES), APGDDLR(eot=PASSES)),
}
IN_L1: dict[str, tuple[Attack, ...]] = {
    "standard": (
        APGDCE(restarts=5, shrink=True),
        APGDTargeted(targets=5, shrink=True),
        FABTargeted(),
        Square(),
    )
}
"""What the reference has otherwise in l1: there, only the standard is meant for it."""


class AutoAttack(Ensemble):
    """Attacks in turn, each from the original of the points still robust.

    "standard" is apgd-ce, apgd-t, fab-t and square; "plus" is longer; "rand" is for randomised
    models. Croce and Hein 2020 (arXiv 2003.01690) and, in l1, 2021 (2103.01208); settings are those
    of their implementation.
    """

    name = "autoattack"
    version: Literal["standard", "plus", "rand"] = Field(
        default="standard", description="which list of attacks"
    )

    def parts(self, classes: int, threat: ThreatModel) -> Sequence[Attack]:
        lists = VERSIONS | IN_L1 if threat.norm == "l1" else VERSIONS
        return lists[self.version]

    def remarks(self, classes: int, threat: ThreatModel) -> Sequence[str]:
        parts = self.parts(classes, threat)
        remarks = [remark for part in parts for remark in part.remarks(classes, threat)]
        if self.version == "rand":
            remarks.append(
                f"rand: losses and predictions are averaged over the {PASSES} passes, as gradients "
                "are; the reference takes those of the last pass"
            )
        return remarks
