"""Triplets drawn by distance: negatives at every distance, instead of the many that lie at the typical one."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar._arrays import Array, Namespace, as_like, exp_sum, expect_matrix, namespace, quiet, where, working_copy
from nearfar._errors import InputError
from nearfar.engine.strips import tall
from nearfar.measures import Euclidean
from nearfar.measures.base import normalise
from nearfar.relations import Labels, Pair

INF = float("inf")


def distance_weighted(
    embeddings: Array, labels: Any, *, seed: int, nearest: float = 0.5, farthest: float = 1.4
) -> tuple[Array, Array, Array]:
    r"""One negative for each anchor and positive, drawn with a probability that evens out distances (Wu 2017).

    Distances :math:`d` of random points on the unit sphere in :math:`n` dimensions have the density

    .. math::
        q(d) \propto d^{\,n-2} \big(1 - \tfrac14 d^2\big)^{(n-3)/2}

    A negative is drawn with probability :math:`\propto 1 / q(\max(d, c))`, never one farther than ``farthest``. An
    anchor without a negative that near gives no triplet.

    Args:
        embeddings: Shape (items, features), at least two features; taken to unit length here.
        labels: One label an item.
        seed: Of the draw; the same seed draws the same triplets of the same batch, another one every step trains best.
        nearest: :math:`c`, on the unit sphere; nearer negatives weigh as if they were that far, which bounds the noise.
        farthest: On the unit sphere; below 2.

    Returns:
        Indices of anchors, positives and negatives, for example for
        ``loss.triplets(x[anchor], x[positive], x[negative])``.

    Raises:
        InputError: Distances that cannot be on a unit sphere, or one feature.
        ShapeError: The shapes do not fit each other.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.standard_normal((12, 4)), np.arange(12) // 3
        >>> anchor, positive, negative = nf.distance_weighted(x, y, seed=0)
        >>> bool((y[anchor] == y[positive]).all() and (y[anchor] != y[negative]).all())
        True

    Memory: a strip of the table.

    Reference:
        Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, section 4.1.
    """
    xp = namespace(embeddings=embeddings)
    expect_matrix("embeddings", embeddings)
    if not 0 < nearest < farthest < 2:
        raise InputError(f"expected 0 < nearest < farthest < 2, got {nearest} and {farthest}; the paper's are 0.5, 1.4")
    if embeddings.shape[1] < 2:
        raise InputError("expected at least two features, got 1; a sphere in one dimension has two points")
    rows = normalise(xp, working_copy(xp, embeddings))[0]
    side, bound = Euclidean().prepare(xp, rows, None), Labels(labels).bind(xp, rows, None)
    count, generator, found = int(rows.shape[0]), np.random.default_rng(seed), []
    for start in range(0, count, tall(count)):
        stop = min(start + tall(count), count)
        pair = bound.strip(start, stop)
        d = Euclidean().table(xp, side.strip(start, stop), side, start).values
        draw = as_like(xp, generator.random(tuple(pair.index.shape)), rows, xp.float64)
        with quiet():
            found.append(_drawn(xp, d, pair, draw, (start, rows.shape[1], nearest, farthest)))
    if not found:
        empty = xp.argsort(xp.zeros_like(rows[:, 0]))
        return empty, empty, empty
    anchor, positive, negative = (xp.concat(parts) for parts in zip(*found, strict=True))
    return anchor, positive, negative


def _drawn(
    xp: Namespace, d: Array, pair: Pair, draw: Array, setting: tuple[int, int, float, float]
) -> tuple[Array, Array, Array]:
    """The triplets of a strip: the first negative whose cumulative weight passes the draw."""
    start, n, nearest, farthest = setting
    d = xp.astype(d, xp.float64)
    inside = pair.negatives(xp.astype(d <= farthest, xp.float64), 0.0) > 0
    d = xp.clip(d, nearest, farthest)
    z = (2.0 - n) * xp.log(d) - (n - 3) / 2 * xp.log1p(-d * d / 4)
    sums = xp.cumulative_sum(exp_sum(xp, where(xp, inside, z, -INF))[1], axis=1)
    total, negatives = sums[:, -1:], []
    for r in range(pair.index.shape[1]):
        passed = sums > draw[:, r : r + 1] * total
        negatives.append(xp.argmax(xp.astype(passed, xp.int8), axis=1))
    row, column = xp.nonzero((pair.weight > 0) & (total > 0))
    return row + start, pair.index[row, column], xp.stack(negatives, axis=1)[row, column]
