"""Label metrics that are measured: on pixels by a linear classifier, or on a model's own errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustkit.analysis.costs import normalised
from robustkit.errors import BadValueError
from robustkit.metric import LabelMetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from robustkit.interfaces import Images


def boundary_distances(
    x: NDArray[np.float64], y: NDArray[np.int64], weight: ArrayLike, bias: ArrayLike
) -> NDArray[np.float64]:
    """Give how far points lie from a linear classifier's boundaries: (K, K), symmetric.

    D_ij is the mean over the points x of class i of |(w_i - w_j) x + b_i - b_j| / ||w_i - w_j||_2,
    their Euclidean distance to the hyperplane between i and j, right side or wrong; given is the
    mean of D_ij and D_ji. Points x are (N, D), their classes y (N,) in [0, K), each there at least
    once; `weight` is (K, D), `bias` (K,). Pairs without a boundary (w_i = w_j) are 0 apart.
    """
    import numpy as np

    w, b = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    logits = x @ w.T + b
    classes = range(len(w))
    margins = np.array([np.abs(logits[y == i][:, [i]] - logits[y == i]).mean(0) for i in classes])
    slopes = np.linalg.norm(w[:, None] - w[None], axis=2)
    distances = np.divide(margins, slopes, out=np.zeros_like(margins), where=slopes > 0)
    return (distances + distances.T) / 2


def linear_metric(images: Images, name: str, limit: int = 10_000, seed: int = 0) -> LabelMetric:
    """Take the boundary distances of a linear classifier on pixels for a metric.

    The classifier is multinomial logistic regression (scikit-learn, C = 1) on the pixels in [0, 1]
    of `limit` points that the seed draws, those with a label; distances are those of the same
    points. Terzi et al. 2020, section 5, which does not say how the classifier was trained. Raises
    BadValueError where a class has none of these points.
    """
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    from robustkit.data.splits import permutation

    order = permutation(len(images), seed)
    ids = order[images.labels[order] >= 0][:limit]
    y = images.labels[ids].numpy()
    for label, own in enumerate(images.classes):
        if label not in y:
            raise BadValueError(f"class '{own}' has none of the {len(ids)} points of '{name}'")
    x = images.take(ids).flatten(1).to(torch.float64).numpy() / 255
    found = LogisticRegression(max_iter=1000).fit(x, y)
    weight, bias = found.coef_, found.intercept_
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    source = (
        f"boundary distances of logistic regression on pixels: {name}, {len(ids)} training points,"
        f" seed {seed}, C = 1, {100 * found.score(x, y):.1f} % of them right"
    )
    return LabelMetric(images.classes, boundary_distances(x, y, weight, bias), source)


def confusion_metric(classes: Sequence[str], confusion: ArrayLike, source: str = "") -> LabelMetric:
    """Call classes near that are often taken for each other: cost 1 - (m_ij + m_ji) / largest.

    m is the confusion matrix (rows labels, columns predictions) with rows divided by their sums; a
    class without points is never taken for another. The largest sum is over pairs, so that the pair
    that is confused most costs nothing. Raises BadValueError where no two are ever confused, or
    all equally often: then there is no metric in it.
    """
    import numpy as np

    shares = np.nan_to_num(normalised(confusion))
    confused = shares + shares.T
    np.fill_diagonal(confused, 0)
    if not confused.any():
        raise BadValueError("no class is ever taken for another: there is no metric in that")
    costs = 1 - confused / confused.max()
    np.fill_diagonal(costs, 0)
    return LabelMetric(tuple(classes), costs, source)
