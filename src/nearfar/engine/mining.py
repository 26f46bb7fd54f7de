"""Mining on half tiles: which pairs of a tile its rows leave out, and which its columns."""

from __future__ import annotations

import math
from typing import TypeAlias

from nearfar._arrays import Array, Namespace, where
from nearfar.engine.half_tiles import Tiles
from nearfar.engine.rules import Mined
from nearfar.relations import Pair

Easy: TypeAlias = tuple[Array, Array]
"""Which pairs of a tile its rows leave out, and which its columns."""


class Mining:
    """What mining compares a pair with: its anchor's least similar positive and most similar negative."""

    def __init__(self, xp: Namespace, loss: Mined, tiles: Tiles) -> None:
        self.xp, self.loss = xp, loss
        self.least = xp.zeros_like(tiles.each)
        self.most = xp.full_like(tiles.each, -math.inf)

    def begin(self, part: slice, values: Array, pair: Pair) -> Array:
        """Look at a diagonal block, which has all positives; it with the easy negatives at −∞."""
        self.least[part] = self.loss.least(self.xp, pair.take(values), pair)[:, 0]
        values = pair.negatives(values, -math.inf)
        self.most[part] = self.xp.max(values, axis=1)
        return self._without_easy(part, values)

    def see(self, values: Array, rows: slice, columns: slice) -> None:
        """Take in a tile of negatives."""
        xp = self.xp
        self.most[rows] = xp.maximum(self.most[rows], xp.max(values, axis=1))
        self.most[columns] = xp.maximum(self.most[columns], xp.max(values, axis=0))

    def easy(self, values: Array, rows: slice, columns: slice) -> Easy | None:
        """Which pairs the rows leave out, and which the columns; None where both leave out all."""
        xp, loss = self.xp, self.loss
        top = xp.max(values)
        if bool(xp.all(loss.easy(xp, top, self.least[rows]))) and bool(xp.all(loss.easy(xp, top, self.least[columns]))):
            return None
        return loss.easy(xp, values, self.least[rows, None]), loss.easy(xp, values, self.least[None, columns])

    def none_left(self) -> Array:
        """Which anchors leave out every negative."""
        return self.loss.easy(self.xp, self.most, self.least)

    def kept(self, part: slice, positive: Array, values: Array, pair: Pair) -> tuple[Array, Array]:
        """Positives and negatives of a diagonal block that are not easy, the others as far as can be."""
        return self.loss.hard(self.xp, positive, self.most[part, None], pair), self._without_easy(part, values)

    def _without_easy(self, part: slice, values: Array) -> Array:
        return where(self.xp, ~self.loss.easy(self.xp, values, self.least[part, None]), values, -math.inf)
