"""What a data set holds, in numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from robustkit.data.images import remark_of
from robustkit.interfaces import Images

CHUNK = 2048


def channel_stats(images: Images) -> tuple[list[float], list[float]]:
    """Measure mean and standard deviation of each channel's pixels in [0, 1], exactly."""
    channels = images.shape[0]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for ids in torch.arange(len(images)).split(CHUNK):
        x = images.take(ids).numpy()
        for channel in range(channels):
            histogram[channel] += np.bincount(x[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(1)
    return mean.tolist(), np.sqrt(variance).tolist()


def class_counts(images: Images) -> list[int]:
    """Count the points of each class; unknown labels count nowhere."""
    known = images.labels[images.labels >= 0]
    counts: list[int] = torch.bincount(known, minlength=len(images.classes)).tolist()
    return counts


def describe(images: Images) -> dict[str, Any]:
    """Give n, bytes, shape, classes, counts, unknown, mean and std of each channel, any remark."""
    mean, std = channel_stats(images)
    counts = class_counts(images)
    remark = remark_of(images)
    return {
        "n": len(images),
        "bytes": len(images) * math.prod(images.shape),
        "shape": list(images.shape),
        "classes": list(images.classes),
        "counts": counts,
        "unknown": len(images) - sum(counts),
        "mean": mean,
        "std": std,
        **({"remark": remark} if remark else {}),
    }
