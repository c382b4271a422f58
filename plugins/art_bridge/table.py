"""Which attacks of the toolbox there are, and how each fits a threat model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One attack: a class of art.attacks.evasion, and what this project must know of it."""

    original: str
    norms: tuple[str, ...]
    minimal: bool = False
    """Whether the toolbox gives it no eps, so that any size is looked at."""
    weak: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)
    """Options of the class that are not the user's to set."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Where its own do nothing, overflow, or end on the border, where rounding decides."""
    targeted: bool = True
    kept: frozenset[str] = frozenset()
    """Options that are the user's although a threat has one of that name."""
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
    "carlini-l2": Row("CarliniL2Method", ROUND, minimal=True, weak=False),
    "carlini-linf": Row("CarliniLInfMethod", ("linf",), minimal=True),
    "deepfool": Row("DeepFool", ROUND, minimal=True, weak=False, defaults={"epsilon": 0.02}),
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
    "auto-cg": Row("AutoConjugateGradient", ANY, weak=False),
    "auto-pgd": Row("AutoProjectedGradientDescent", ANY, weak=False),
    "basic-iterative": Row("BasicIterativeMethod", ("linf",), weak=False),
    "fast-gradient": Row("FastGradientMethod", ANY),
    "momentum-iterative": Row("MomentumIterativeMethod", ANY),
    "pgd": Row("ProjectedGradientDescentPyTorch", ANY),
    "rescaling-auto-cg": Row("RescalingAutoConjugateGradient", ANY, weak=False),
    "square": Row("SquareAttack", ("linf", "l2")),
    "universal": Row(
        "UniversalPerturbation",
        ("linf", "l2"),
        given={"attacker": "deepfool", "attacker_params": {"verbose": False}},
        remark="makes a perturbation of each point alone, not one of all points",
    ),
    "virtual-adversarial": Row("VirtualAdversarialMethod", ROUND, probabilities=True),
    # What no norm bounds.
    "shadow": Row("ShadowAttack", ("none",)),
    "spatial": Row("SpatialTransformation", ("none",), defaults=TURNS),
    "wasserstein": Row(
        "Wasserstein",
        ("none",),
        given={"norm": "wasserstein", "ball": "wasserstein"},
        defaults={"eps_step": 0.1, "regularization": 100.0},
        kept=frozenset({"eps"}),
        remark="bounds the Wasserstein distance by its own eps, which the engine does not check",
    ),
}

DETECTORS = "attacks detectors of objects, or trackers"
SPEECH = "attacks recognisers of speech"
OTHER = "attacks another kind of model"
TWICE = "the same as another one here"
PATCH = "makes one patch for a set of images, to be pasted"

LEFT_OUT = {
    "AdversarialPatch": PATCH,
    "AdversarialPatchNumpy": PATCH,
    "AdversarialPatchPyTorch": PATCH,
    "AdversarialPatchTensorFlowV2": PATCH,
    "AdversarialTexturePyTorch": DETECTORS,
    "AutoAttack": "another list under that name; its parts are here, `autoattack` is the standard",
    "BrendelBethgeAttack": "needs numba, and is there only with it",
    "CarliniWagnerASR": SPEECH,
    "CompositeAdversarialAttackPyTorch": "needs kornia",
    "DPatch": DETECTORS,
    "DecisionTreeAttack": OTHER,
    "FeatureAdversariesNumpy": "needs a second image to imitate",
    "FeatureAdversariesPyTorch": "needs a second image to imitate",
    "FeatureAdversariesTensorFlowV2": "needs a second image to imitate",
    "FrameSaliencyAttack": "attacks models of video",
    "GRAPHITEBlackbox": "needs a second image to imitate",
    "GRAPHITEWhiteboxPyTorch": "needs a second image to imitate",
    "HighConfidenceLowUncertainty": OTHER,
    "ImperceptibleASR": SPEECH,
    "ImperceptibleASRPyTorch": SPEECH,
    "LaserAttack": "needs a generator of lasers, which no option can name",
    "LowProFool": "attacks models of tables",
    "MalwareGDTensorFlow": "attacks models of programs",
    "OverTheAirFlickeringPyTorch": "attacks models of video",
    "OverloadPyTorch": DETECTORS,
    "ProjectedGradientDescent": TWICE,
    "ProjectedGradientDescentNumpy": TWICE,
    "ProjectedGradientDescentTensorFlowV2": TWICE,
    "RobustDPatch": DETECTORS,
    "SNAL": DETECTORS,
    "TargetedUniversalPerturbation": "needs a target class",
}
"""Classes of art.attacks.evasion that are not here, and why."""
