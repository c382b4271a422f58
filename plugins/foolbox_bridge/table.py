"""Which attacks of Foolbox there are: a class a norm, or one that takes its distance as told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One attack: its class of foolbox.attacks by norm, and what must be known of it."""

    classes: Mapping[str, str]
    weak: bool = True
    targeted: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)
    """Options of the class that are not the user's to set."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Where Foolbox's own lack or do nothing."""

    @property
    def norms(self) -> tuple[str, ...]:
        return tuple(self.classes)


LP = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def by_norm(ending: str, *norms: str) -> dict[str, str]:
    """Name the classes that differ in the norm alone."""
    return {norm: LP[norm] + ending for norm in norms or LP}


def any_norm(name: str) -> dict[str, str]:
    """Name the one class of every norm."""
    return dict.fromkeys(LP, name)


def l2(name: str) -> dict[str, str]:
    """Name a class that is of l2 alone."""
    return {"l2": name}


FMN = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack"}

TABLE = {
    # Searches inside a ball.
    "adam-basic-iterative": Row(by_norm("AdamBasicIterativeAttack"), weak=False),
    "adam-pgd": Row(by_norm("AdamProjectedGradientDescentAttack"), weak=False),
    "basic-iterative": Row(by_norm("BasicIterativeAttack"), weak=False),
    "fast-gradient": Row(by_norm("FastGradientAttack"), weak=False, targeted=False),
    "momentum-iterative": Row(by_norm("MomentumIterativeFastGradientMethod"), weak=False),
    "pgd": Row(by_norm("ProjectedGradientDescentAttack"), weak=False),
    "sparse-l1-descent": Row({"l1": "SparseL1DescentAttack"}, weak=False),
    "virtual-adversarial": Row(
        l2("VirtualAdversarialAttack"), targeted=False, defaults={"steps": 10}
    ),
    # Searches for the smallest perturbation.
    "boundary": Row(l2("BoundaryAttack")),
    "carlini": Row(l2("L2CarliniWagnerAttack")),
    "ddn": Row(l2("DDNAttack"), weak=False),
    "deepfool": Row(by_norm("DeepFoolAttack", "linf", "l2"), weak=False, targeted=False),
    "ead": Row({"l1": "EADAttack"}),
    "fmn": Row(FMN),
    "hopskipjump": Row(dict.fromkeys(("linf", "l2"), "HopSkipJumpAttack")),
    "newtonfool": Row(l2("NewtonFoolAttack"), targeted=False),
    "pointwise": Row(any_norm("PointwiseAttack")),
    # Noise and corruptions, as much of them as misleads the model.
    "blended-uniform-noise": Row(any_norm("LinearSearchBlendedUniformNoiseAttack")),
    "contrast-reduction": Row(any_norm("BinarySearchContrastReductionAttack")),
    "contrast-reduction-linear": Row(any_norm("LinearSearchContrastReductionAttack")),
    "gaussian-blur": Row(any_norm("GaussianBlurAttack")),
    "inversion": Row(any_norm("InversionAttack")),
    "salt-and-pepper": Row(l2("SaltAndPepperNoiseAttack")),
    # Noise of a size.
    "contrast-reduction-l2": Row(l2("L2ContrastReductionAttack")),
    "gaussian-noise": Row(l2("L2AdditiveGaussianNoiseAttack")),
    "gaussian-noise-clipped": Row(l2("L2ClippingAwareAdditiveGaussianNoiseAttack")),
    "gaussian-noise-clipped-repeated": Row(
        l2("L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack")
    ),
    "gaussian-noise-repeated": Row(l2("L2RepeatedAdditiveGaussianNoiseAttack")),
    "uniform-noise": Row(by_norm("AdditiveUniformNoiseAttack", "linf", "l2")),
    "uniform-noise-clipped": Row(l2("L2ClippingAwareAdditiveUniformNoiseAttack")),
    "uniform-noise-clipped-repeated": Row(l2("L2ClippingAwareRepeatedAdditiveUniformNoiseAttack")),
    "uniform-noise-repeated": Row(by_norm("RepeatedAdditiveUniformNoiseAttack", "linf", "l2")),
    # What no norm bounds.
    "spatial": Row({"none": "SpatialAttack"}),
}

LEFT_OUT = {
    "BinarizationRefinementAttack": "refines what another attack found on a binarised model",
    "DatasetAttack": "shows the model other images of a data set",
    "GenAttack": "needs a target class",
    "L0BrendelBethgeAttack": "needs numba",
    "L1BrendelBethgeAttack": "needs numba",
    "L2BrendelBethgeAttack": "needs numba",
    "LinfinityBrendelBethgeAttack": "needs numba",
    "L0FMNAttack": "counts pixels, which is no norm here",
}
"""Classes of foolbox.attacks that are not here, and why; those of two names are here under one."""
