"""The points of a training: those trained on, and those held out of them for selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustkit.data.describe import channel_stats, class_counts
from robustkit.data.images import Subset
from robustkit.data.splits import hold_out, permutation
from robustkit.errors import BadValueError
from robustkit.interfaces import Dataset, Images
from robustkit.recipe import Fit


@dataclass(frozen=True)
class Points:
    """Two parts of a data set's training points, and what the first one measures."""

    train: Images
    heldout: Images
    counts: Tensor
    """Training points of each class (classes,)."""
    mean: list[float]
    """Of each channel's pixels in [0, 1], over the points trained on; so is std."""
    std: list[float]


def divide(data: Dataset, fit: Fit, seed: int, *, unlabelled: bool = False) -> Points:
    """Hold points out of the training data, class by class; they are labelled ones.

    Unlabelled points, the data set's own and those that lose their label by `fit.labels`, are
    trained on only where asked for; their label is -1. Where no point has a label, none is held
    out. Raises BadValueError where a part would be empty, or a class has fewer points than are to
    keep their label.
    """
    images = data.split("train")
    kept = heldout = known = (images.labels >= 0).nonzero().squeeze(1)
    if len(known):
        kept, heldout = (known[part] for part in hold_out(images.labels[known], fit.heldout, seed))
    elif fit.labels is not None or not unlabelled:
        wanted = f"fit.labels is {fit.labels}" if fit.labels else "a classifier learns from labels"
        raise BadValueError(f"{wanted}, but no point of '{data.name}' has a label")
    kept = some(images.labels, kept, fit.limit, seed)
    labels = images.labels.clone()
    if fit.labels is not None:
        labelled = each_class(images, kept, fit.labels, seed)
        labels[kept] = -1
        labels[labelled] = images.labels[labelled]
        kept = kept if unlabelled else labelled
    if unlabelled:
        room = None if fit.limit is None else fit.limit - len(kept)
        kept = torch.cat((kept, (images.labels < 0).nonzero().squeeze(1)[:room]))
    train = Subset(images, kept, labels[kept])
    if len(kept) < 2:
        raise BadValueError(f"only {len(kept)} points of '{data.name}' are left to train on")
    mean, std = channel_stats(train)
    return Points(train, Subset(images, heldout), torch.tensor(class_counts(train)), mean, std)


def each_class(images: Images, ids: Tensor, labels: int, seed: int) -> Tensor:
    """Pick so many of the ids (n,), equally many of each class, in the order of `ids`.

    Raises BadValueError where that cannot be.
    """
    classes = len(images.classes)
    share, rest = divmod(labels, classes)
    if rest:
        near = " or ".join(str(n * classes) for n in (share, share + 1) if n)
        raise BadValueError(
            f"fit.labels {labels} is not as many of each of {classes} classes; give {near}"
        )
    shuffled = ids[permutation(len(ids), seed)]
    of_class = [shuffled[images.labels[shuffled] == label] for label in range(classes)]
    fewest = min(range(classes), key=lambda label: len(of_class[label]))
    if len(of_class[fewest]) < share:
        raise BadValueError(
            f"fit.labels {labels} is {share} of each class, but of '{images.classes[fewest]}' only"
            f" {len(of_class[fewest])} points are trained on"
        )
    chosen = torch.cat([points[:share] for points in of_class])
    return ids[torch.isin(ids, chosen)]


def some(labels: Tensor, ids: Tensor, limit: int | None, seed: int) -> Tensor:
    """Pick at most `limit` of the ids (n,), each class in proportion."""
    if limit is None or limit >= len(ids):
        return ids
    return ids[hold_out(labels[ids], limit, seed)[1]]
