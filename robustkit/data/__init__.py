"""Data sets, their batches, and augmentation on the device."""

from robustkit.data.augment import crop, cutout, flip
from robustkit.data.batches import Batches, DeviceImages
from robustkit.data.describe import channel_stats, class_counts, describe
from robustkit.data.images import ArrayImages, Subset, unit
from robustkit.data.splits import hold_out

__all__ = [
    "ArrayImages",
    "Batches",
    "DeviceImages",
    "Subset",
    "channel_stats",
    "class_counts",
    "crop",
    "cutout",
    "describe",
    "flip",
    "hold_out",
    "unit",
]
