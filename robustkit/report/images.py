"""Adversarial examples and heat maps as inline PNG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustkit.arrays import Gallery
from robustkit.report.collect import Evaluation
from robustkit.report.words import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN = 12
"""Examples of one evaluation, at most."""
CLOSEST = 6
"""Robust points of one evaluation, at most."""
SIDE = 112
"""Pixels of an image's side, at most: larger ones are averaged down."""
BUDGET = 1_500_000
"""Bytes that the examples of a whole report may take."""


@dataclass(frozen=True)
class Example:
    """An original, its adversarial example and their difference, as data URIs."""

    original: str
    adversarial: str
    difference: str
    label: str
    clean: str
    predicted: str
    fooled: bool
    margin: str
    """What was left of the logit margin of one that was not broken; empty for others."""


@dataclass(frozen=True)
class Examples:
    """What a report shows of a gallery."""

    shown: tuple[Example, ...]
    of: int
    factor: int
    """What differences are multiplied by, around mid-grey."""
    side: tuple[int, int]
    """Height and width of an image."""
    shrunk: bool
    clipped: bool
    """Whether adversarial pixels lie outside [0, 1], where no screen shows them."""


def examples(evaluation: Evaluation, gallery: Gallery, galleries: int) -> Examples | None:
    """Choose and draw a gallery's examples, those that fool the model first.

    `galleries` is how many share the report's budget of bytes. None where there is no example.
    """
    import numpy as np

    return _drawn(evaluation, _some(gallery, np.isnan(gallery.margins)), galleries, SHOWN)


def closest(evaluation: Evaluation, gallery: Gallery, galleries: int) -> Examples | None:
    """Draw what came closest to breaking robust points; None where that is not known."""
    import numpy as np

    return _drawn(evaluation, _some(gallery, ~np.isnan(gallery.margins)), galleries, CLOSEST)


def _some(gallery: Gallery, chosen: NDArray[np.bool_]) -> Gallery:
    return Gallery(**{name: values[chosen] for name, values in vars(gallery).items()})


def _drawn(evaluation: Evaluation, gallery: Gallery, galleries: int, most: int) -> Examples | None:
    import numpy as np

    if not len(gallery.x):
        return None
    classes = evaluation.record.classes
    names = [*(plain(name) for name in classes), "unknown"]
    fooled = gallery.adversarial_predictions != gallery.labels
    shrink = max(1, -(-max(gallery.x.shape[2:]) // SIDE))
    size = 4 * (gallery.x[0].size // shrink**2 + 300)
    most = min(most, max(2, BUDGET // (galleries * size)))
    chosen = np.argsort(~fooled, kind="stable")[:most]
    difference = gallery.x_adv - gallery.x
    factor = magnification(difference[chosen])
    shown = tuple(
        Example(
            original=picture(gallery.x[i], shrink),
            adversarial=picture(gallery.x_adv[i], shrink),
            difference=picture(0.5 + factor * difference[i], shrink),
            label=names[gallery.labels[i]],
            clean=names[gallery.clean_predictions[i]],
            predicted=names[gallery.adversarial_predictions[i]],
            fooled=bool(fooled[i]),
            margin="" if np.isnan(gallery.margins[i]) else f"{gallery.margins[i]:.3g}",
        )
        for i in chosen
    )
    height, width = gallery.x.shape[2:]
    outside = gallery.x_adv[chosen]
    clipped = bool(((outside < 0) | (outside > 1)).any())
    return Examples(shown, len(gallery.x), factor, (height, width), shrink > 1, clipped)


def magnification(difference: NDArray[np.float32]) -> int:
    """Give the largest of 1, 2, 5, 10, ... by which no difference leaves mid-grey +- 0.5."""
    import numpy as np

    largest = float(np.abs(difference).max(initial=0.0))
    steps = [m * 10**e for e in range(4) for m in (1, 2, 5)]
    return max((s for s in steps if s * largest <= 0.5 + 1e-6), default=1) if largest else 1


def picture(image: NDArray[np.float32], shrink: int = 1) -> str:
    """Write an image (C, H, W) for [0, 1]; three channels are colours, others are averaged."""
    if shrink > 1:
        _, height, width = image.shape
        rows, columns = height // shrink, width // shrink
        image = image[:, : rows * shrink, : columns * shrink]
        image = image.reshape(-1, rows, shrink, columns, shrink).mean((2, 4))
    return png(image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0))


def png(pixels: NDArray[np.floating[Any]]) -> str:
    """Write pixels (H, W), (H, W, 3) or (H, W, 4), clipped to [0, 1], as a PNG data URI."""
    import numpy as np
    from matplotlib.image import imsave

    file = io.BytesIO()
    grey = pixels.ndim == 2
    imsave(
        file, np.clip(np.repeat(pixels[..., None], 3, 2) if grey else pixels, 0, 1), format="png"
    )
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def heat_map(matrix: NDArray[np.int64]) -> str:
    """Draw a confusion matrix, a pixel a cell: blue on the diagonal, orange off it."""
    import numpy as np

    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    pixels = np.zeros((*matrix.shape, 4))
    pixels[..., :3] = (0.84, 0.37, 0.0)
    pixels[np.eye(len(matrix), dtype=bool), :3] = (0.2, 0.52, 0.78)
    # The root shows single confusions among many points.
    pixels[..., 3] = np.sqrt(share)
    return png(pixels)
