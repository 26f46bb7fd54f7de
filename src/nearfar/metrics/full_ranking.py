"""Retrieval values that look as far down the ranking as the hits are.

Ties, queries without a relevant reference and NaN scores as in :mod:`nearfar.metrics.retrieval`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar.metrics._ranking import Ranking, per_query


def average_precision(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    exclude_self: bool | None = None,
) -> NDArray[np.float64]:
    """Average precision over the whole ranking: (1/R_i) Σ_k P_i(k)·rel_i(k); its mean is MAP.

    :func:`~nearfar.metrics.map_at_r` stops at place R_i, and so weighs the top alone.

    Args:
        scores: n × m, higher is nearer.
        query_labels: n labels.
        reference_labels: m labels; ``None``: the references are the queries.
        exclude_self: leave out the diagonal; by default when ``reference_labels`` is ``None``.

    Returns:
        One value for each query, NaN where no reference is relevant.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: labels that cannot be compared.

    Example:
        >>> from nearfar.metrics import average_precision
        >>> average_precision([[0.9, 0.8, 0.1, 0.0]], [7], [8, 7, 8, 7]).tolist()   # (1/2 + 2/4) / 2
        [0.5]
    """
    return per_query(_average_precision, scores, query_labels, reference_labels, exclude_self)


def reciprocal_rank(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    exclude_self: bool | None = None,
) -> NDArray[np.float64]:
    """One over the place of the nearest relevant reference; its mean is MRR.

    Args:
        scores: n × m, higher is nearer.
        query_labels: n labels.
        reference_labels: m labels; ``None``: the references are the queries.
        exclude_self: leave out the diagonal; by default when ``reference_labels`` is ``None``.

    Returns:
        One value for each query, NaN where no reference is relevant.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: labels that cannot be compared.

    Example:
        >>> from nearfar.metrics import reciprocal_rank
        >>> reciprocal_rank([[0.9, 0.5, 0.5]], [7], [8, 7, 8]).tolist()   # a tie for the second place
        [0.41666666666666663]
    """
    return per_query(_reciprocal_rank, scores, query_labels, reference_labels, exclude_self)


def _average_precision(ranking: Ranking) -> NDArray[np.float64]:
    gains = ranking.gains(ranking.size.shape[1])
    return np.asarray(gains.sum(axis=1) / np.maximum(ranking.relevant, 1))


def _reciprocal_rank(ranking: Ranking) -> NDArray[np.float64]:
    """Where the first group with a hit has g references, h of them hits: the place of its first hit by chance."""
    some = ranking.hits > 0
    rows, first = np.arange(len(some)), some.argmax(axis=1)
    before, size, hits = (part[rows, first][:, None] for part in (ranking.before, ranking.size, ranking.hits))
    ahead = np.arange(int((size - hits).max(initial=0)) + 1)
    left = np.maximum(size - ahead, 1)
    miss = np.maximum(size - hits - ahead, 0) / left
    none_yet = np.cumprod(np.concatenate([np.ones_like(miss[:, :1]), miss[:, :-1]], axis=1), axis=1)
    chance = none_yet * np.minimum(hits / left, 1.0)
    return np.asarray((chance / (before + ahead + 1)).sum(axis=1))
