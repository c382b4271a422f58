"""Warnings off wrong numbers: each check looks at plain tensors or records and gives lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from robustkit.data.images import unit
from robustkit.errors import BadValueError
from robustkit.records import EvalRecord, PartRecord, Rate
from robustkit.threat import format_eps

MANY = 0.1
"""The share of probed points from which zero gradients and saturated logits are worth a warning."""

FEW = 0.002
"""The share of points that one attack may break beyond another before it means something: the rule
of AutoAttack's implementation for Square."""

SEEDS = 0.01
"""The share of points that another attack may break beyond AutoAttack: its own seeds differ by some
half a hundredth."""

SAME = 1e-4
"""Relative difference of logits that two passes may show by rounding."""

SATURATED = 16.6
"""Lead of a logit beyond which its softmax rounds to 1 in float32, and cross-entropy to 0."""


def unit_range(x: Tensor, boxed: bool) -> Tensor:
    """Give images (N, C, H, W) as float32 in [0, 1]; uint8 is divided by 255.

    Raises BadValueError for floats outside [0, 1], unless the threat has no box.
    """
    if x.dtype == torch.uint8:
        return unit(x)
    if boxed and not bool(((x >= 0) & (x <= 1)).all()):
        low, high = float(x.min()), float(x.max())
        raise BadValueError(
            f"images lie in [{low:.4g}, {high:.4g}], not in [0, 1]; "
            "give pixels in [0, 1] and normalise inside the model"
        )
    return x.float()


def require_held(x: Tensor, bits: int) -> None:
    """Raise BadValueError where images (N, C, H, W) in [0, 1] are not ones of so many bits."""
    levels = x * (2**bits - 1)
    if bool(((levels - levels.round()).abs() > 1e-2).any()):
        raise BadValueError(
            f"{bits}-bit images do not hold the originals, whose pixels lie between their"
            f" {2**bits} levels; those of most data sets are of 8 bits"
        )


def require_logits(logits: object, n: int, classes: Sequence[str]) -> Tensor:
    """Give the model's answer to n images back if it is logits (n, classes).

    Raises BadValueError where it is something else, or of another number of classes.
    """
    if not isinstance(logits, Tensor):
        raise BadValueError(f"the model returns {type(logits).__name__}, not a tensor of logits")
    if logits.dim() != 2 or len(logits) != n:
        raise BadValueError(
            f"the model returns shape {tuple(logits.shape)} for {n} images, not (images, classes)"
        )
    if logits.shape[1] != len(classes):
        raise BadValueError(
            f"the model has {logits.shape[1]} classes and the data set {len(classes)}"
        )
    return logits


def require_labels(labels: Tensor, classes: Sequence[str]) -> None:
    """Raise BadValueError where a label (N,) is beyond the classes."""
    if len(labels) and int(labels.max()) >= len(classes):
        raise BadValueError(
            f"the data set has label {int(labels.max())}, but only {len(classes)} classes"
        )


def class_names(of_model: Sequence[str], of_data: Sequence[str]) -> list[str]:
    """Warn where the names of model and data differ."""
    for place, (mine, its) in enumerate(zip(of_model, of_data, strict=False)):
        if mine != its:
            return [
                f"class {place} is '{mine}' to the model and '{its}' to the data set: "
                "labels may mean different things to them"
            ]
    return []


def differ(one: Tensor, other: Tensor) -> bool:
    """Say whether two passes over the same images differ by more than rounding."""
    finite = one.isfinite() & other.isfinite()
    scale = one[finite].abs().amax().clamp(min=1) if finite.any() else one.new_ones(())
    apart = (one - other)[finite].abs()
    return bool((one.isnan() != other.isnan()).any() or (apart > SAME * scale).any())


def randomised(rounds: int) -> list[str]:
    """Warn of a randomised model."""
    return [
        f"the model is randomised: verdicts are by plurality over {rounds} seeded passes; "
        "use an attack that averages gradients over the randomness"
    ]


def batch_dependence() -> list[str]:
    """Warn of a model whose answer to an image depends on the other images of the call."""
    return [
        "the model's answer to an image depends on the others of its batch, even in eval mode "
        "(batch statistics?): verdicts depend on the batch size"
    ]


def softmax_outputs(logits: Tensor) -> list[str]:
    """Warn where the outputs (N, classes) are probabilities."""
    whole = (logits.sum(1) - 1).abs() < SAME
    if bool(((logits >= 0).all(1) & (logits <= 1).all(1) & whole).all()):
        return [
            "the model's outputs are probabilities, not logits: gradients vanish and attacks are "
            "weakened; drop its softmax"
        ]
    return []


def not_numbers(logits: Tensor) -> list[str]:
    """Warn where outputs (N, classes) are NaN."""
    count = int(logits.isnan().any(1).sum())
    if count:
        return [
            f"the model gives NaN for {count} of {len(logits)} clean images; they count as wrong"
        ]
    return []


def saturated(logits: Tensor) -> list[str]:
    """Warn where one logit of (N, classes) leads so far that cross-entropy is 0 in float32."""
    if logits.shape[1] < 2:
        return []
    top = logits.topk(2, dim=1).values
    share = float((top[:, 0] - top[:, 1] > SATURATED).double().mean())
    if share <= MANY:
        return []
    return [
        f"logits are saturated on {share:.0%} of probed images: cross-entropy rounds to 0 there "
        "and attacks that climb it are blind; believe autoattack, whose losses do not saturate"
    ]


def masked_gradients(gradient: Tensor | None) -> list[str]:
    """Warn where the margin's gradient (N, C, H, W) by the image is zero, NaN, or absent."""
    if gradient is None:
        return [
            "no gradient reaches the image: the model is not differentiable, and only attacks "
            "without gradients (square) mean anything"
        ]
    flat = gradient.flatten(1)
    dead = (flat == 0).all(1) | ~flat.isfinite().all(1)
    share = float(dead.double().mean())
    if share <= MANY:
        return []
    return [
        f"the gradient by the image is zero on {share:.0%} of probed images (gradient masking): "
        "attacks that follow gradients are weakened; believe square more than them"
    ]


def near_chance(clean: Rate, confusion: Sequence[Sequence[int]]) -> list[str]:
    """Warn where clean accuracy is near chance, and say if another order of classes explains it."""
    chance = 1 / len(confusion)
    if clean.value > min(1.5 * chance, chance + 0.05):
        return []
    line = f"clean accuracy {clean.value:.1%} is near chance ({chance:.1%}): "
    best = [max(range(len(row)), key=row.__getitem__) for row in confusion]
    explained = sum(row[place] for row, place in zip(confusion, best, strict=True)) / clean.n
    if len(set(best)) == len(best) and explained >= 0.5:
        return [line + f"in another order of classes it would be {explained:.1%}"]
    return [line + "check the model's normalisation, its range of pixels and the order of classes"]


def rejections(part: PartRecord, largest: float, threat: str) -> list[str]:
    """Say that an attack proposed what does not count, so that the number is not valid."""
    if not part.rejected:
        return []
    seen = breach(largest, threat)
    return [
        f"invalid: attack '{part.name}' is broken: {part.rejected} of {part.attacked} proposals "
        f"are {seen}; points without another verdict count neither as robust nor as broken"
    ]


def late(parts: Sequence[PartRecord]) -> list[str]:
    """Say where a clock ended searches: those verdicts are of this machine, too."""
    return [
        f"'{part.name}' ran out of time on {part.stopped} of {part.attacked} points, which keep "
        "what it had found by then: there the number depends on the machine, and may be too high"
        for part in parts
        if part.stopped
    ]


def breach(largest: float, threat: str) -> str:
    """Say what is wrong with rejected proposals, the largest of which has this size, or NaN."""
    return "not numbers" if math.isnan(largest) else f"outside {threat} (up to {largest:.4g})"


def black_box_wins(parts: Sequence[PartRecord], n: int) -> list[str]:
    """Warn where a part without gradients broke what parts with gradients had left, of n points."""
    lines = []
    for place, part in enumerate(parts):
        white = [p.name for p in parts[:place] if p.backwards]
        if white and part.attacked and not part.backwards and part.broken > FEW * n:
            lines.append(
                f"'{part.name}', which uses no gradient, broke {part.broken} points that "
                f"{', '.join(white)} had left: gradients may be masked, and the number too high"
            )
    return lines


def one_step_wins(one: EvalRecord, other: EvalRecord) -> list[str]:
    """Warn where an attack of one step a point beats one of several, at the same threat."""
    steps = [_steps(record) for record in (one, other)]
    if not (one.threat == other.threat and 0 < steps[0] <= 1.01 < steps[1]):
        return []
    if other.robust.count - one.robust.count <= FEW * one.robust.n:
        return []
    return [
        f"'{one.attack['name']}' in one step breaks more than '{other.attack['name']}': "
        "gradients may be masked, or the longer attack badly set"
    ]


def standard_beaten(one: EvalRecord, other: EvalRecord) -> list[str]:
    """Warn where AutoAttack leaves more than another attack, at the same threat."""
    if other.attack["name"] != "autoattack" or one.threat != other.threat:
        return []
    if other.robust.count - one.robust.count <= SEEDS * one.robust.n:
        return []
    return [
        f"'{one.attack['name']}' leaves {one.robust.value:.1%} robust and 'autoattack'"
        f" {other.robust.value:.1%}: the standard number is too high for this model; report the"
        " worst case"
    ]


def not_monotone(small: EvalRecord, large: EvalRecord) -> list[str]:
    """Warn where an attack breaks less with a larger eps."""
    same = small.attack == large.attack and small.threat == large.threat.model_copy(
        update={"eps": small.threat.eps}
    )
    if not same or small.threat.eps >= large.threat.eps or math.isinf(large.threat.eps):
        return []
    if large.robust.count - small.robust.count <= FEW * large.robust.n:
        return []
    return [
        f"'{large.attack['name']}' breaks less at eps {format_eps(large.threat.eps)} than at "
        f"{format_eps(small.threat.eps)}: it is badly set, or gradients are masked"
    ]


def across(records: Sequence[EvalRecord]) -> dict[str, list[str]]:
    """Give the warnings that follow from comparing evaluations of the same points, by hash."""
    lines: dict[str, list[str]] = {record.hash: [] for record in records}
    for pair in combinations(records, 2):
        if pair[0].robust.n != pair[1].robust.n:
            continue  # a limit stopped one of them
        for one, other in (pair, pair[::-1]):
            for check in (one_step_wins, standard_beaten, not_monotone):
                lines[other.hash] += check(one, other)
    return lines


def _steps(record: EvalRecord) -> float:
    """Give the steps along a gradient that a point was given; several gradients may make one."""
    attacked = max((part.attacked for part in record.parts), default=0)
    return sum(min(part.forwards, part.backwards) for part in record.parts) / max(attacked, 1)
