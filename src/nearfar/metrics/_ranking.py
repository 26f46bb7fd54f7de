"""References of each query from near to far, equal scores grouped: what every retrieval value is read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, ShapeError
from nearfar.metrics._checks import Array, label_array, score_array

_CELLS = 1 << 20  # cells of one strip of the table


@dataclass(frozen=True)
class Ranking:
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

    def gains(self, width: int) -> NDArray[np.float64]:
        """Expected precision at each of the first ``width`` places where there is a hit, 0 where there is none."""
        before, size, hits = self.before[:, :width], self.size[:, :width], self.hits[:, :width]
        place = np.arange(1, size.shape[1] + 1)
        ahead = (place - before - 1) * (hits - 1) / np.maximum(size - 1, 1)
        return np.asarray(hits / size * (self.hits_before[:, :width] + 1 + ahead) / place)


Rule: TypeAlias = Callable[[Ranking], NDArray[np.float64]]


def rankings(
    scores: ArrayLike, query_labels: ArrayLike, reference_labels: ArrayLike | None, exclude_self: bool | None
) -> Iterator[Ranking]:
    """Check a table of scores and its labels, and rank the references of each query, strip by strip.

    Args:
        scores: n × m, higher is nearer.
        query_labels: n labels.
        reference_labels: m labels; ``None``: the references are the queries.
        exclude_self: leave out the diagonal; by default when ``reference_labels`` is ``None``.

    Yields:
        The queries in their order, as many at a time as memory should hold.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: labels that cannot be compared.

    Example:
        >>> import numpy as np
        >>> from nearfar.metrics._ranking import rankings
        >>> (strip,) = rankings(np.array([[0.5, 0.9, 0.5]]), [7], [7, 8, 7], None)
        >>> strip.before.tolist(), strip.size.tolist(), strip.hits.tolist(), strip.relevant.tolist()
        ([[0, 1, 1]], [[1, 2, 2]], [[0, 2, 2]], [2])
    """
    table = score_array(scores, "scores", 2)
    rows, columns = table.shape
    queries = label_array(query_labels, "query_labels", rows)
    without_self = reference_labels is None if exclude_self is None else exclude_self
    if (without_self or reference_labels is None) and rows != columns:
        raise ShapeError(f"expected square scores, got {table.shape}; pass reference_labels and exclude_self=False")
    references = queries if reference_labels is None else label_array(reference_labels, "reference_labels", columns)
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


def per_query(
    rule: Rule,
    scores: ArrayLike,
    query_labels: ArrayLike,
    reference_labels: ArrayLike | None,
    exclude_self: bool | None,
) -> NDArray[np.float64]:
    """The rule's value of each query, NaN where no reference is relevant."""
    strips = rankings(scores, query_labels, reference_labels, exclude_self)
    return np.concatenate([np.zeros(0), *(applied(rule, ranking) for ranking in strips)])


def applied(rule: Rule, ranking: Ranking) -> NDArray[np.float64]:
    """The rule's value of each query of a strip, NaN where no reference is relevant."""
    lonely = ranking.relevant == 0
    if ranking.before.shape[1] == 0:
        return np.full(len(lonely), np.nan)
    return np.where(lonely, np.nan, rule(ranking))


def _comparable(queries: Array, references: Array) -> None:
    kinds = {"text" if part.dtype.kind in "US" else "object" if part.dtype.kind == "O" else "number"
             for part in (queries, references) if len(part)}  # fmt: skip
    if len(kinds) > 1 and "object" not in kinds:
        raise InputError(
            f"expected labels of one kind, got {queries.dtype} and {references.dtype}; "
            "convert those of the queries or of the references"
        )


def _rank(scores: Array, relevant: NDArray[np.bool_]) -> Ranking:
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
    return Ranking(before, end - before, hits_before, hits, relevant.sum(axis=1))
