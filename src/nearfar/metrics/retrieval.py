"""Retrieval: for each query, are its relevant references the nearest ones?

Scores are higher for nearer. Query i has R_i relevant references (same label, itself left out). A query with
R_i = 0 gets NaN: leave it out of the mean and say how many there were. Equal scores have no order, so every
value is the exact **expectation over all orders of the ties**; the order of the data never matters. A NaN
score ranks last and is never a hit. A strictly increasing map of the scores changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, ShapeError
from nearfar.metrics._checks import Array, label_array, score_array

_CELLS = 1 << 20  # cells of one strip of the table


@dataclass(frozen=True)
class _Ranking:
    """A strip of queries, references from near to far; every array is queries × positions."""

    before: NDArray[np.int64]  # positions ahead of the tie group
    size: NDArray[np.int64]  # size of the tie group
    hits_before: NDArray[np.int64]
    hits: NDArray[np.int64]  # hits in the tie group
    relevant: NDArray[np.int64]  # R of each query

    def at(self, position: NDArray[np.int64]) -> tuple[Array, Array, Array, Array]:
        """(places to fill, size, hits before, hits) of the group that holds the 0-based ``position``."""
        rows = np.arange(len(position))
        taken = position + 1 - self.before[rows, position]
        return (
            taken,
            self.size[rows, position],
            self.hits_before[rows, position],
            self.hits[rows, position],
        )


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
    return _per_query(_recall(k), scores, query_labels, reference_labels, exclude_self)


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
    return _per_query(_r_precision, scores, query_labels, reference_labels, exclude_self)


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
    return _per_query(_map_at_r, scores, query_labels, reference_labels, exclude_self)


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
    rules: dict[str, _Rule] = {"precision_at_1": _recall(1)}
    rules |= {f"recall_at_{place}": _recall(place) for place in k}
    rules |= {"r_precision": _r_precision, "map_at_r": _map_at_r}
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rules}
    for ranking in _rankings(scores, query_labels, reference_labels, exclude_self):
        for name, rule in rules.items():
            found[name].append(_apply(rule, ranking))
    return {name: np.concatenate([np.zeros(0), *parts]) for name, parts in found.items()}


_Rule = Callable[[_Ranking], NDArray[np.float64]]


def _per_query(
    rule: _Rule,
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None,
    exclude_self: bool | None,
) -> NDArray[np.float64]:
    strips = _rankings(scores, query_labels, reference_labels, exclude_self)
    return np.concatenate([np.zeros(0), *(_apply(rule, ranking) for ranking in strips)])


def _apply(rule: _Rule, ranking: _Ranking) -> NDArray[np.float64]:
    lonely = ranking.relevant == 0
    if ranking.before.shape[1] == 0:
        return np.full(len(lonely), np.nan)
    return np.where(lonely, np.nan, rule(ranking))


def _rankings(
    scores: ArrayLike, query_labels: ArrayLike, reference_labels: ArrayLike | None, exclude_self: bool | None
) -> Iterator[_Ranking]:
    table = score_array(scores, "scores", 2)
    rows, columns = table.shape
    queries = label_array(query_labels, "query_labels", rows)
    without_self = reference_labels is None if exclude_self is None else exclude_self
    if (without_self or reference_labels is None) and rows != columns:
        raise ShapeError(
            f"expected square scores, got {table.shape}; pass reference_labels and exclude_self=False"
        )
    references = (
        queries if reference_labels is None else label_array(reference_labels, "reference_labels", columns)
    )
    _comparable(queries, references)
    height = max(1, _CELLS // max(1, columns))
    for start in range(0, rows, height):
        strip = table[start : start + height]
        relevant = np.asarray(queries[start : start + height, None] == references[None, :], dtype=bool)
        if without_self:
            own = np.arange(len(strip))
            strip = strip.copy()
            strip[own, start + own] = np.nan  # last place, never a hit
            relevant[own, start + own] = False
        yield _rank(strip, relevant)


def _comparable(queries: Array, references: Array) -> None:
    kinds = {"text" if part.dtype.kind in "US" else "object" if part.dtype.kind == "O" else "number"
             for part in (queries, references) if len(part)}  # fmt: skip
    if len(kinds) > 1 and "object" not in kinds:
        raise InputError(
            f"expected labels of one kind, got {queries.dtype} and {references.dtype}; "
            "convert those of the queries or of the references"
        )


def _rank(scores: Array, relevant: NDArray[np.bool_]) -> _Ranking:
    order = np.argsort(-scores, axis=1, kind="stable")  # NaN last
    ranked = np.take_along_axis(scores, order, axis=1)
    hit = np.take_along_axis(relevant, order, axis=1) & ~np.isnan(ranked)
    columns = ranked.shape[1]
    place = np.arange(columns)
    new = np.ones(ranked.shape, dtype=bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    last = np.ones(ranked.shape, dtype=bool)
    last[:, :-1] = new[:, 1:]
    before = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    end = np.minimum.accumulate(np.where(last, place + 1, columns)[:, ::-1], axis=1)[:, ::-1]
    counted = np.zeros((len(ranked), columns + 1), dtype=np.int64)
    np.cumsum(hit, axis=1, out=counted[:, 1:])
    hits_before = np.take_along_axis(counted, before, axis=1)
    hits = np.take_along_axis(counted, end, axis=1) - hits_before
    return _Ranking(before, end - before, hits_before, hits, relevant.sum(axis=1))


def _recall(k: int) -> _Rule:
    if k < 1:
        raise InputError(f"expected k of at least 1, got {k}; recall@1 is the nearest reference")

    def rule(ranking: _Ranking) -> NDArray[np.float64]:
        rows, columns = ranking.before.shape
        places, size, hits_before, hits = ranking.at(np.full(rows, min(k, columns) - 1))
        log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, columns + 1)))])
        misses = size - hits
        room = misses >= places  # else a hit must be among the places
        rest = np.where(room, misses - places, 0)
        log_none = (
            log_factorial[misses] - log_factorial[rest] - log_factorial[size] + log_factorial[size - places]
        )
        none = np.where(room, np.exp(np.where(room, log_none, 0.0)), 0.0)
        none = np.where(places == 1, misses / size, none)  # exact where it matters most
        return np.where(hits_before > 0, 1.0, np.where(hits == 0, 0.0, 1.0 - none))

    return rule


def _r_precision(ranking: _Ranking) -> NDArray[np.float64]:
    relevant = np.maximum(ranking.relevant, 1)
    places, size, hits_before, hits = ranking.at(relevant - 1)
    return np.asarray((hits_before + hits * places / size) / relevant)


def _map_at_r(ranking: _Ranking) -> NDArray[np.float64]:
    relevant = np.maximum(ranking.relevant, 1)
    width = int(relevant.max(initial=1))
    before, size = ranking.before[:, :width], ranking.size[:, :width]
    hits = ranking.hits[:, :width]
    place = np.arange(1, width + 1)
    ahead = (place - before - 1) * (hits - 1) / np.maximum(size - 1, 1)
    gain = hits / size * (ranking.hits_before[:, :width] + 1 + ahead) / place
    gain = np.where(place <= relevant[:, None], gain, 0.0)
    return np.asarray(gain.sum(axis=1) / relevant)
