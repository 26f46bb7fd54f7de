"""Retrieval: for each query, are its relevant references the nearest ones?

Scores are higher for nearer. Query i has R_i relevant references (same label, itself left out). A query with
R_i = 0 gets NaN: leave it out of the mean and say how many there were. Equal scores have no order, so every
value is the exact **expectation over all orders of the ties**; the order of the data never matters. A NaN
score ranks last and is never a hit. A strictly increasing map of the scores changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, expect_whole
from nearfar.metrics._ranking import Ranking, Rule, applied, per_query, rankings


def precision_at_1(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    exclude_self: bool | None = None,
) -> NDArray[np.float64]:
    """1 where the nearest reference is relevant, else 0; with ties hits / size of the first tie group.

    Args:
        scores: n × m, higher is nearer.
        query_labels: n labels, integers or strings.
        reference_labels: m labels; ``None``: the references are the queries.
        exclude_self: leave out the diagonal; by default when ``reference_labels`` is ``None``.

    Returns:
        One value for each query, NaN where no reference is relevant.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: labels are floats, or queries and references have labels of different kinds.

    Example:
        >>> from nearfar.metrics import precision_at_1
        >>> precision_at_1([[9.0, 0.7, 0.2], [0.7, 9.0, 0.7], [0.2, 0.7, 9.0]], [1, 1, 1]).tolist()
        [1.0, 1.0, 1.0]
    """
    return recall_at_k(scores, query_labels, reference_labels, k=1, exclude_self=exclude_self)


def recall_at_k(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    k: int,
    exclude_self: bool | None = None,
) -> NDArray[np.float64]:
    """1 where a relevant reference is among the k nearest, else 0; with ties the probability of it.

    A tie group of g references, h relevant, that fills the last m of the k places: 1 − C(g−h, m) / C(g, m).

    Args:
        scores: n × m, higher is nearer.
        query_labels: n labels.
        reference_labels: m labels; ``None``: the references are the queries.
        k: how many of the nearest count, at least 1.
        exclude_self: leave out the diagonal; by default when ``reference_labels`` is ``None``.

    Returns:
        One value for each query, NaN where no reference is relevant.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: k below 1, or labels that cannot be compared.

    Example:
        >>> from nearfar.metrics import recall_at_k
        >>> recall_at_k([[0.5, 0.5, 0.1]], [7], [7, 8, 9], k=1).tolist()   # a tie for the first place
        [0.5]
    """
    return per_query(_recall(k), scores, query_labels, reference_labels, exclude_self)


def r_precision(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    exclude_self: bool | None = None,
) -> NDArray[np.float64]:
    """Share of relevant references among the R_i nearest, P_i(R_i).

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
        >>> from nearfar.metrics import r_precision
        >>> r_precision([[0.9, 0.8, 0.1]], [7], [7, 8, 7]).tolist()
        [0.5]
    """
    return per_query(_r_precision, scores, query_labels, reference_labels, exclude_self)


def map_at_r(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    exclude_self: bool | None = None,
) -> NDArray[np.float64]:
    """Mean average precision at R (Musgrave et al. 2020): (1/R_i) Σ_{k≤R_i} P_i(k)·rel_i(k).

    Place j of a tie group of g (h relevant, c places and H hits ahead of it) adds, in expectation,
    (h/g) · (H + 1 + (j−1)(h−1)/(g−1)) / (c+j).

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
        >>> from nearfar.metrics import map_at_r
        >>> map_at_r([[0.9, 0.8, 0.1]], [7], [8, 7, 7]).tolist()   # one hit, at place 2 of R = 2
        [0.25]
    """
    return per_query(_map_at_r, scores, query_labels, reference_labels, exclude_self)


def rank_metrics(
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None = None,
    *,
    k: Sequence[int] = (5, 10),
    exclude_self: bool | None = None,
) -> dict[str, NDArray[np.float64]]:
    """precision_at_1, recall_at_k, r_precision and map_at_r of each query, in one sorting.

    Args:
        scores: n × m, higher is nearer.
        query_labels: n labels.
        reference_labels: m labels; ``None``: the references are the queries.
        k: the places for recall.
        exclude_self: leave out the diagonal; by default when ``reference_labels`` is ``None``.

    Returns:
        Name → one value for each query, NaN where no reference is relevant.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: k below 1, or labels that cannot be compared.

    Example:
        >>> from nearfar.metrics import rank_metrics
        >>> values = rank_metrics([[0.9, 0.8, 0.1]], ["a"], ["b", "a", "a"], k=[2])
        >>> {name: value.tolist() for name, value in values.items()}
        {'precision_at_1': [0.0], 'recall_at_2': [1.0], 'r_precision': [0.5], 'map_at_r': [0.25]}
    """
    if not isinstance(k, Iterable):
        raise InputError(f"expected k to be several places, got {k!r}; for example k=(1, 5)")
    rules: dict[str, Rule] = {"precision_at_1": _recall(1)}
    rules |= {f"recall_at_{place}": _recall(place) for place in k}
    rules |= {"r_precision": _r_precision, "map_at_r": _map_at_r}
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rules}
    for ranking in rankings(scores, query_labels, reference_labels, exclude_self):
        for name, rule in rules.items():
            found[name].append(applied(rule, ranking))
    return {name: np.concatenate([np.zeros(0), *parts]) for name, parts in found.items()}


def _recall(k: int) -> Rule:
    k = expect_whole("k", k)

    def rule(ranking: Ranking) -> NDArray[np.float64]:
        rows, columns = ranking.before.shape
        places, size, hits_before, hits = ranking.at(np.full(rows, min(k, columns) - 1))
        log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, columns + 1)))])
        misses = size - hits
        room = misses >= places  # else a hit must be among the places
        rest = np.where(room, misses - places, 0)
        log_none = log_factorial[misses] - log_factorial[rest] - log_factorial[size] + log_factorial[size - places]
        none = np.where(room, np.exp(np.where(room, log_none, 0.0)), 0.0)
        none = np.where(places == 1, misses / size, none)  # exact where it matters most
        return np.where(hits_before > 0, 1.0, np.where(hits == 0, 0.0, 1.0 - none))

    return rule


def _r_precision(ranking: Ranking) -> NDArray[np.float64]:
    relevant = np.maximum(ranking.relevant, 1)
    places, size, hits_before, hits = ranking.at(relevant - 1)
    return np.asarray((hits_before + hits * places / size) / relevant)


def _map_at_r(ranking: Ranking) -> NDArray[np.float64]:
    relevant = np.maximum(ranking.relevant, 1)
    gain = ranking.gains(int(relevant.max(initial=1)))
    gain = np.where(np.arange(1, gain.shape[1] + 1) <= relevant[:, None], gain, 0.0)
    return np.asarray(gain.sum(axis=1) / relevant)
