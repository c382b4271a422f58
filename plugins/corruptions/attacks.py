"""Corruptions as attacks that look for nothing: what noise, blur, weather and the like cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

import robustkit as rk

from .images import corrupted

Which = Literal[
    "gaussian-noise", "shot-noise", "impulse-noise",
    "defocus-blur", "glass-blur", "motion-blur", "zoom-blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic-transform", "pixelate", "jpeg-compression",
]  # fmt: skip
ALL: tuple[Which, ...] = Which.__args__  # type: ignore[attr-defined]
Severity = Literal[1, 2, 3, 4, 5]
SCALE = (
    "corruptions are as strong as those of ImageNet-C; CIFAR-10-C's and MNIST-C's files are of"
    " weaker ones"
)


class Corruption(rk.Attack):
    """One common corruption at one strength; the model is not asked.

    Images become 8-bit, as files are. Hendrycks and Dietterich 2019 (arXiv 1903.12261), as the
    library imagecorruptions-imaug makes them: `pip install 'robustkit[corruptions]'`.
    """

    name = "corruption"
    norms = ("none",)
    soft = True
    weak = True
    which: Which = Field(default="gaussian-noise", description="the corruption")
    severity: Severity = Field(default=3, description="how strong it is")

    def perturb(
        self,
        victim: rk.Victim,
        x: Tensor,
        y: Tensor,
        threat: rk.ThreatModel,
        rng: rk.Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        _require_no_norm(self, threat)
        seeds = rng.choice(2**31, at=("corruption", self.which, self.severity))
        return corrupted(x, [self.which] * len(x), [self.severity] * len(x), seeds.tolist())

    def remarks(self, classes: int, threat: rk.ThreatModel) -> Sequence[str]:
        return (SCALE,)


class Corruptions(rk.Attack):
    """All common corruptions at all strengths: what each leaves, and the mean of all.

    Each is measured on all points that are right when clean; the mean is over corruptions and
    strengths alike, in parts of all points. As one attack, inside a trainer, it gives each point
    one of them at random. Hendrycks and Dietterich 2019 (arXiv 1903.12261), whose mean divides by
    what another network loses.
    """

    name = "corruptions"
    norms = ("none",)
    soft = True
    weak = True
    separate = True
    which: tuple[Which, ...] = Field(default=ALL, min_length=1, description="the corruptions")
    severities: tuple[Severity, ...] = Field(
        default=(1, 2, 3, 4, 5), min_length=1, description="how strong they are"
    )

    def parts(self, classes: int, threat: rk.ThreatModel) -> Sequence[rk.Attack]:
        return [Corruption(which=w, severity=s) for w in self.which for s in self.severities]

    def perturb(
        self,
        victim: rk.Victim,
        x: Tensor,
        y: Tensor,
        threat: rk.ThreatModel,
        rng: rk.Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        _require_no_norm(self, threat)
        which = rng.choice(len(self.which), at="which").tolist()
        strong = rng.choice(len(self.severities), at="severity").tolist()
        seeds = rng.choice(2**31, at="seed").tolist()
        kinds = [self.which[i] for i in which]
        return corrupted(x, kinds, [self.severities[i] for i in strong], seeds)

    def remarks(self, classes: int, threat: rk.ThreatModel) -> Sequence[str]:
        return (SCALE,)


def _require_no_norm(attack: rk.Attack, threat: rk.ThreatModel) -> None:
    if threat.norm != "none":
        raise rk.BadValueError(
            f"attack '{attack.name}' does not work in norm '{threat.norm}'; it works in none"
        )
