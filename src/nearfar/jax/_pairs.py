"""Labels on a strip of static shape: nothing here depends on a label's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nearfar._arrays import Array, Namespace, add_columns, arange, take_columns
from nearfar.jax._axis import total
from nearfar.jax._plan import Plan
from nearfar.relations import Pair
from nearfar.relations.whole import WholePair


class Listed(WholePair):
    """A strip whose positives are a list for each anchor, as long as the largest class; see :class:`WholePair`."""

    def __init__(self, whole: WholePair, index: Array, weight: Array) -> None:
        self.__dict__.update(whole.__dict__)
        self._positive, self.index, self.weight = whole.weight, index, weight

    def take(self, table: Array) -> Array:
        """The table at the list."""
        return take_columns(self.xp, table, self.index)

    def add(self, table: Array, values: Array) -> Array:
        """At the list."""
        return add_columns(table, self.index, values)

    def valid_logits(self, logits: Array) -> Array:
        """−inf where there is no pair."""
        return self._logits(logits, self._positive + self._negative)


@dataclass
class ByLabels:
    """Equal labels, in a table of own anchors and all references.

    Attributes:
        plan: The plan.
        marks: Labels of the anchors and of the references.
        count: How many references there are.
        start: Place of the first anchor among the references, of a batch against itself.
        like: An array of the dtype that weights are computed in.
    """

    xp: Namespace
    plan: Plan
    marks: tuple[Array, Array]
    count: int
    start: Any
    like: Array

    def __post_init__(self) -> None:
        """Lists from sorted labels, where it is known how long they are."""
        xp = self.xp
        self.lists: tuple[Array, Array, Array, int] | None = None
        own, other = self.marks
        order = xp.argsort(other, stable=True)
        first, last = (xp.searchsorted(other[order], own, side=side) for side in ("left", "right"))
        self.kept, self.kept_others = self._kept()
        positives = xp.where(self.kept, last - first - int(self.plan.is_self), 0)
        negatives = xp.where(self.kept, xp.sum(self.kept_others) - (last - first), 0)
        self.totals = tuple(total(xp.sum(xp.astype(n, xp.float64)), self.plan.axis) for n in (positives, negatives))
        if self.plan.longest is not None and 2 * self.plan.longest <= self.count:
            self.lists = order, first, last, self.plan.longest

    def _kept(self) -> tuple[Array, Array]:
        xp, ignore = self.xp, self.plan.ignore
        if ignore is None:
            return tuple(xp.ones(codes.shape, bool) for codes in self.marks)
        kept, others = (codes != ignore for codes in self.marks)
        return kept, others if self.plan.is_self or self.plan.ignore_references else xp.ones_like(others)

    def live(self, at: Array, real: Array) -> tuple[Array, Array]:
        """Which anchors of the strip and which references take part in anything."""
        return real & self.kept[at], self.kept_others

    def places(self, at: Array) -> Array | None:
        """The column in which each anchor meets itself."""
        return at + self.start if self.plan.is_self else None

    def pair(self, at: Array, real: Array) -> Pair:
        """The relation of the anchors ``at``; one that is not real has no pairs."""
        xp, dtype = self.xp, self.like.dtype
        own, other = self.marks
        rows, columns = self.live(at, real)
        alike, both = own[at][:, None] == other[None, :], rows[:, None] & columns[None, :]
        positive, place = alike & both, self.places(at)
        if place is not None:
            positive = positive & (arange(xp, self.count, other)[None, :] != place[:, None])
        negative = xp.astype(~alike & both, dtype)
        whole = WholePair(xp, xp.astype(positive, dtype), negative, self.totals, True)
        return whole if self.lists is None else self._listed(whole, self.lists, at, rows)

    def _listed(self, whole: WholePair, lists: tuple[Array, Array, Array, int], at: Array, rows: Array) -> Pair:
        xp, (order, first, last, longest) = self.xp, lists
        place = first[at][:, None] + arange(xp, longest, at)[None, :]
        inside = (place < last[at][:, None]) & rows[:, None]
        index = order[xp.clip(place, max=self.count - 1)]
        own = self.places(at)
        if own is not None:
            inside = inside & (index != own[:, None])
        return Listed(whole, index, xp.astype(inside, self.like.dtype))
