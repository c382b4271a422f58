"""Which attacks of the toolbox there are, and how each fits a threat model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One attack: a class of art.attacks.evasion, and what this project must know of it."""

    library: str
    norms: tuple[str, ...]
    minimal: bool = False
    """Whether the toolbox gives it no eps, so that any size is looked at."""
    weak: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)
    """Options of the class that are not the user's to set."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Where the toolbox's own defaults do nothing."""
    targeted: bool = True
    probabilities: bool = False
    """Whether the toolbox must be shown probabilities rather than logits."""
    remark: str = ""


PIXELS = "counts pixels, which is no norm here: under 'none' its own options bound it"
TURNS = {"max_translation": 10.0, "num_translations": 3, "max_rotation": 30.0, "num_rotations": 11}
ANY, ROUND = ("linf", "l2", "l1"), ("l2",)

TABLE = {
    # Searches for the smallest perturbation.
    "boundary": Row("BoundaryAttack", ROUND, minimal=True),
    "carlini-l0": Row("CarliniL0Method", ("none", "l1"), minimal=True, remark=PIXELS),
    "carlini-l2": Row("CarliniL2Method", ROUND, minimal=True),
    "carlini-linf": Row("CarliniLInfMethod", ("linf",), minimal=True),
    "deepfool": Row("DeepFool", ROUND, minimal=True),
    "elasticnet": Row("ElasticNet", ("l1", "l2"), minimal=True),
    "geoda": Row("GeoDA", ANY, minimal=True),
    "hopskipjump": Row("HopSkipJump", ("linf", "l2"), minimal=True),
    "jsma": Row("SaliencyMapMethod", ("none", "l1"), minimal=True, remark=PIXELS),
    "newtonfool": Row("NewtonFool", ROUND, minimal=True),
    "pixel": Row("PixelAttack", ("none", "l1"), minimal=True, given={"es": 1}, remark=PIXELS),
    "signopt": Row("SignOPTAttack", ROUND, minimal=True, targeted=False),
    "simba": Row("SimBA", ROUND, minimal=True, probabilities=True),
    "threshold": Row("ThresholdAttack", ("linf",), minimal=True, given={"es": 1}),
    "zoo": Row("ZooAttack", ROUND, minimal=True),
    # Searches inside a ball.
    "auto-cg": Row("AutoConjugateGradient", ANY),
    "auto-pgd": Row("AutoProjectedGradientDescent", ANY),
    "basic-iterative": Row("BasicIterativeMethod", ("linf",)),
    "fast-gradient": Row("FastGradientMethod", ANY),
    "momentum-iterative": Row("MomentumIterativeMethod", ANY),
    "pgd": Row("ProjectedGradientDescentPyTorch", ANY),
    "rescaling-auto-cg": Row("RescalingAutoConjugateGradient", ANY),
    "square": Row("SquareAttack", ("linf", "l2")),
    "universal": Row("UniversalPerturbation", ("linf", "l2")),
    "virtual-adversarial": Row("VirtualAdversarialMethod", ROUND),
    # What no norm bounds.
    "shadow": Row("ShadowAttack", ("none",)),
    "spatial": Row("SpatialTransformation", ("none",), defaults=TURNS),
    "wasserstein": Row("Wasserstein", ("none",)),
}
