"""Losses that pick a few pairs of each anchor: the table is looked at once, and only the picked pairs have a gradient.

Strips of the table, one product of its size; the gradient goes along the differences of the picked pairs, so that the
two products that a strip of weights would take are never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, arange, on_host, where, zeros
from nearfar.engine.strips import tall
from nearfar.engine.sums import Ran, per_term
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation
from nearfar.relations.labels import BoundLabels

# Below this many items products cost less than lists.
LEAST = 512


@dataclass
class Picks:
    """The triplets that a strip's anchors pick.

    Attributes:
        losses: Sum of each anchor's terms, a column.
        near: Columns of the positives; shape (anchors, triplets).
        far: Columns of the negatives; the same shape.
        slope: Derivative by the positive's measure, minus that by the negative's; the same shape.
    """

    losses: Array
    near: Array
    far: Array
    slope: Array


@dataclass
class PickedPairs:
    """One table of a batch against itself; the loss has ``pick`` and ``picked_terms``."""

    xp: Namespace
    loss: Any
    bound: BoundLabels
    side: Prepared
    units: ClassVar[float] = 1.0

    @property
    def way(self) -> str:
        """In words."""
        return f"listed pairs, found in strips of {self._height}"

    @property
    def elements(self) -> int:
        """Of the temporaries."""
        return 4 * self._height * int(self.side.rows.shape[0])

    @property
    def _height(self) -> int:
        count = int(self.side.rows.shape[0])
        return min(tall(count), count)

    def run(self, gradient: bool, upstream: Array | None) -> Ran:
        """Strip by strip."""
        xp, loss, side, measure = self.xp, self.loss, self.side, self.loss.measure
        count = int(side.rows.shape[0])
        left = xp.zeros_like(side.rows)
        losses, terms = zeros(xp, (count,), side.rows), zeros(xp, (count,), side.rows, xp.float64)
        for start in range(0, count, self._height):
            part = slice(start, min(start + self._height, count))
            table = measure.table(xp, side.at(part), side, start)
            pair = self.bound.strip(part.start, part.stop)
            picks = loss.pick(xp, table.own(xp, measure), pair)
            terms[part] = xp.astype(xp.reshape(loss.picked_terms(xp, pair, picks.slope), (-1,)), xp.float64)
            losses[part] = where(xp, terms[part] > 0, xp.reshape(picks.losses, (-1,)), 0.0)
            if gradient:
                slope = where(xp, terms[part, None] > 0, picks.slope, 0.0)
                if upstream is not None:
                    slope = slope * per_term(xp, upstream[part], terms[part])
                rows = xp.broadcast_to(arange(xp, count, picks.near)[part, None], picks.near.shape)
                pairs = (xp.concat([rows, rows], axis=1), xp.concat([picks.near, picks.far], axis=1))
                anchor, reference = (xp.reshape(places, (-1,)) for places in pairs)
                weight = xp.reshape(xp.concat([slope, -slope], axis=1), (-1,))
                measure.pull_pairs(xp, (anchor, reference), weight, (side, side), (left, left))
        return Ran(losses, terms, left)


def picked_pairs(
    loss: Any, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]
) -> PickedPairs | None:
    """Listed pairs of a batch against itself, where relation, measure, size and device allow them."""
    side = sides[0]
    # On a device two products cost less than to ask which pairs have a weight.
    if side is not sides[1] or side.rows.shape[0] < LEAST or not loss.measure.lists or not on_host(side.rows):
        return None
    return PickedPairs(xp, loss, bound, side) if isinstance(bound, BoundLabels) else None
