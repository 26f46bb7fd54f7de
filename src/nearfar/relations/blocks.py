"""Blocks of a table whose positives all lie on the diagonal: sorted labels cut between classes, or aligned rows."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from nearfar._arrays import Array, Namespace, integers_on_host, on_host
from nearfar.relations.labels import BoundLabels, LabelPair
from nearfar.relations.pair import BoundRelation

# Rows of a block, and the largest class that may make one block of its own.
BLOCK, LARGEST_CLASS = 512, 2048


@dataclass
class Blocks:
    """A table cut into blocks; every pair outside the diagonal blocks is a negative.

    Attributes:
        order: Places of the items in their new order; None where they stay.
        parts: The blocks, as slices of the new order.
        codes: Label of each item in the new order.
        is_self: Whether the table is a batch against itself.
        bound: The whole relation, for counts.
    """

    xp: Namespace
    order: Array | None
    parts: list[slice]
    codes: Array
    is_self: bool
    bound: BoundLabels

    def pair(self, part: slice) -> LabelPair:
        """The relation on a diagonal block, which knows how many pairs lie outside it."""
        codes = self.codes[part]
        inner = BoundLabels(self.xp, codes, codes, self.is_self, self.bound.like)
        inner.negatives = inner.negatives + (self.codes.shape[0] - codes.shape[0])
        inner.totals = self.bound.totals
        return LabelPair(inner, slice(0, codes.shape[0]))


def blocks(xp: Namespace, bound: BoundRelation) -> Blocks | None:
    """The blocks of a relation; None where there are none: other relations, devices, very large classes."""
    if not isinstance(bound, BoundLabels) or not on_host(bound.own):
        return None
    count = int(bound.own.shape[0])
    if bound.aligned:
        return Blocks(xp, None, _cut(count, list(range(0, count + 1, BLOCK))), bound.own, False, bound)
    if not bound.is_self or bound.longest > LARGEST_CLASS:
        return None
    codes = bound.own[bound.order]
    changes = xp.nonzero(codes[1:] != codes[:-1])[0] + 1
    return Blocks(xp, bound.order, _cut(count, [0, *integers_on_host(changes)]), codes, True, bound)


def _cut(count: int, starts: list[int]) -> list[slice]:
    """Blocks of at most BLOCK items that begin where they may; longer ones where a class is."""
    parts, start = [], 0
    starts = [*starts, count]
    while start < count:
        place = bisect_right(starts, start + BLOCK) - 1
        stop = starts[place] if starts[place] > start else starts[place + 1]
        parts.append(slice(start, stop))
        start = stop
    return parts
