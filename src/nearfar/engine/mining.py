"""Mining on half tiles: which pairs of a tile its rows keep, and which its columns."""

from __future__ import annotations

import math
from typing import TypeAlias

from nearfar._arrays import Array, Namespace, without
from nearfar.engine.half_tiles import Tiles
from nearfar.engine.rules import Mined
from nearfar.relations import Pair

Kept: TypeAlias = tuple[Array, Array]
"""1 for the pairs of a tile that its rows keep, and that its columns keep, else 0."""


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

    def kept(self, values: Array, rows: slice, columns: slice) -> Kept | None:
        """What rows and columns keep; None where both leave out all."""
        xp, loss, top = self.xp, self.loss, self.xp.max(values)
        # NaN is not easy: it has to reach the sums.
        if bool(top == top) and all(bool(xp.all(self._leave(top, part))) for part in (rows, columns)):
            return None
        return loss.counts(xp, values, self.least[rows, None]), loss.counts(xp, values, self.least[None, columns])

    def none_left(self) -> Array:
        """Which anchors leave out every negative; none that met NaN, so that its sum is looked at."""
        return self._leave(self.most, slice(None)) & (self.most == self.most)

    def hard(self, part: slice, positive: Array, values: Array, pair: Pair) -> tuple[Array, Array]:
        """Positives and negatives of a diagonal block that are not easy, the others as far as can be."""
        return self.loss.hard(self.xp, positive, self.most[part, None], pair), self._without_easy(part, values)

    def _leave(self, most: Array, part: slice) -> Array:
        return self.loss.counts(self.xp, most, self.least[part]) == 0

    def _without_easy(self, part: slice, values: Array) -> Array:
        return without(self.xp, values, self.loss.counts(self.xp, values, self.least[part, None]))
