"""Semi-hard negatives: the nearest one farther than a positive."""

from __future__ import annotations

from nearfar._arrays import Array, Namespace, argmax, argmin, beyond, take_columns
from nearfar.relations import Pair

INF = float("inf")


class Beyond:
    """The nearest negative of each anchor that is farther than a distance, else its farthest negative."""

    def __init__(self, xp: Namespace, d: Array, pair: Pair) -> None:
        self.xp = xp
        self.farthest = argmax(xp, pair.negatives(d, -INF))
        self.last = take_columns(xp, d, self.farthest)
        self.outside = pair.negatives(d, INF)

    def of(self, least: Array) -> tuple[Array, Array]:
        """Its column and its distance."""
        xp = self.xp
        farther = beyond(xp, self.outside, least)
        nearest = argmin(xp, farther)
        found = take_columns(xp, farther, nearest)
        none = found == INF
        return xp.where(none, self.farthest, nearest), xp.where(none, self.last, found)
