"""A relation of known shape: every reference is listed, and what is no positive weighs 0.

Nothing here depends on a label's value, so that a tracer (JAX) can follow it; on small tables it is also quicker than
sorting labels.
"""

from __future__ import annotations

from functools import cached_property

from nearfar._arrays import Array, Namespace, arange, at_least, times, where
from nearfar.relations.pair import Pair

INF = float("inf")


class WholePair(Pair):
    """A strip of weights, whose list of positives is the whole row."""

    def __init__(
        self, xp: Namespace, positive: Array, negative: Array, totals: tuple[Array, Array], uniform: bool
    ) -> None:
        self.xp, self.weight, self._negative, self.uniform = xp, positive, negative, uniform  # type: ignore[misc]
        self.positive_total, self.negative_total = totals
        self.positive_count = xp.sum(positive, axis=1, keepdims=True)
        self.negative_count = xp.sum(negative, axis=1, keepdims=True)

    @cached_property
    def index(self) -> Array:
        """All columns."""
        rows, columns = self.weight.shape
        return self.xp.broadcast_to(arange(self.xp, columns, self.weight)[None, :], (rows, columns))

    @cached_property
    def share(self) -> Array:
        """As of :class:`Pair`."""
        count = self.positive_count
        safe = at_least(self.xp, count, 1.0) if self.uniform else where(self.xp, count > 0, count, 1.0)
        return self.weight / safe

    def take(self, table: Array) -> Array:
        """A copy, since the table may be overwritten."""
        return self.xp.asarray(table, copy=True)

    def add(self, table: Array, values: Array) -> Array:
        """All places."""
        table += values
        return table

    def negatives(self, table: Array, otherwise: float) -> Array:
        """Another number where there is no negative."""
        return where(self.xp, self._negative != 0, table, otherwise)

    def weigh(self, table: Array) -> Array:
        """Times the weights, which is nothing where all are 1."""
        return table if self.uniform else times(self.xp, self._negative, table)

    def negative_logits(self, logits: Array) -> Array:
        """−inf where there is no negative."""
        return self._logits(logits, self._negative)

    def valid_logits(self, logits: Array) -> Array:
        """−inf where there is no pair."""
        return self._logits(logits, self.weight + self._negative)

    def _logits(self, logits: Array, weight: Array) -> Array:
        xp = self.xp
        if not self.uniform:
            logits = logits + xp.log(where(xp, weight != 0, weight, 1.0))
        return where(xp, weight != 0, logits, -INF)
