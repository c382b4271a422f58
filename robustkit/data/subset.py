"""Some classes of a data set, in balance or out of it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from robustkit.component import slot
from robustkit.data.images import SPLIT_SEED, Subset
from robustkit.data.splits import permutation
from robustkit.errors import UnknownNameError
from robustkit.interfaces import Dataset, Images


class ClassSubset(Dataset):
    """Points of chosen classes, whose labels count from 0 in the order in which they are named.

    With `imbalance` r below 1, class k of K keeps the share r^(k / (K - 1)) of its training points,
    drawn once for all: the first class all, the last one r of them, so that of two classes as large
    the second has r points for each of the first. The test part keeps all points of its classes.
    Points of other classes, or of unknown ones, are left out. Source: Y. Cui et al., Class-Balanced
    Loss Based on Effective Number of Samples, CVPR 2019, section 5.1 (long-tailed CIFAR).
    """

    name: ClassVar[str] = "subset"
    data: Dataset = slot("digits", "the data set that points are taken from")
    classes: tuple[str, ...] = Field(
        default=(), description="names of the classes, in the order of their labels; all if empty"
    )
    imbalance: float = Field(
        default=1.0, gt=0, le=1, description="share of training points that the last class keeps"
    )

    @field_validator("classes")
    @classmethod
    def _apart(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) == 1 or len(set(value)) != len(value):
            raise ValueError("name at least two classes, each once")
        return value

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises UnknownNameError for a class that the data set does not have."""
        images = self.data.split(part)
        classes = self.classes or images.classes
        for name in classes:
            if name not in images.classes:
                raise UnknownNameError(
                    "class", name, images.classes, f"a class of '{self.data.name}' was meant"
                )
        ratio = self.imbalance if part == "train" else 1.0
        kept = _kept(images.labels, [images.classes.index(name) for name in classes], ratio)
        ids, order = torch.cat(kept).sort()
        labels = torch.cat([torch.full_like(own, k) for k, own in enumerate(kept)])
        return Subset(images, ids, labels[order], tuple(classes))


def _kept(labels: Tensor, places: list[int], ratio: float) -> list[Tensor]:
    """Choose each class's points, as ids (n,); a smaller ratio keeps some of what a larger does."""
    shuffled = permutation(len(labels), SPLIT_SEED)
    found = [shuffled[labels[shuffled] == place] for place in places]
    shares = [ratio ** (k / max(len(places) - 1, 1)) for k in range(len(places))]
    return [
        own[: max(1, round(share * len(own)))] for own, share in zip(found, shares, strict=True)
    ]
