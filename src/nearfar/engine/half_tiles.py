"""Half tiles: a table whose positives lie in diagonal blocks, every other tile met once for its rows and its columns.

A batch against itself has a symmetric table, so that one tile of it serves two blocks of anchors; two aligned batches
are asked in both directions, so that one tile serves the rows of one question and the columns of the other. Outside the
diagonal blocks every pair is a negative: no mask. The loss says what a negative adds and weighs (:mod:`.rules`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from nearfar._arrays import Array, Namespace, where, zeros
from nearfar.engine.rules import Apart
from nearfar.engine.sums import Ran, per_term
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair
from nearfar.relations.blocks import BLOCK, Blocks, blocks

# Below this many items one strip is as fast.
LEAST = 1024


@dataclass
class Tiles:
    """Both sides in the order of the blocks, what each anchor's terms count, and the gradients so far."""

    xp: Namespace
    blocks: Blocks
    a: Prepared
    b: Prepared
    upstream: Array | None
    into: tuple[Array, Array] = field(init=False)
    terms: Array = field(init=False)
    each: Array = field(init=False)
    cut: tuple[dict[int, Prepared], dict[int, Prepared]] = field(init=False)

    def __post_init__(self) -> None:
        """Sort the items, cut them, and start from zero."""
        if self.blocks.order is not None:
            self.a = self.b = self.a.at(self.blocks.order)
        left = {part.start: self.a.at(part) for part in self.blocks.parts}
        self.cut = (left, left if self.b is self.a else {part.start: self.b.at(part) for part in self.blocks.parts})
        left = self.xp.zeros_like(self.a.rows)
        self.into = (left, left if self.b is self.a else self.xp.zeros_like(self.b.rows))
        self.terms, self.each = (
            zeros(self.xp, (left.shape[0],), left, self.xp.float64),
            zeros(self.xp, (left.shape[0],), left),
        )

    def count(self, part: slice, terms: Array) -> None:
        """Take the number of terms of a block's anchors; ``each`` stands before the sum of an anchor's terms."""
        xp = self.xp
        terms = xp.reshape(xp.astype(terms, xp.float64), (-1,))
        self.terms[part] = terms
        if self.upstream is None:
            self.each[part] = xp.astype(terms > 0, self.each.dtype)
            return
        given = self.upstream[part if self.blocks.order is None else self.blocks.order[part]]
        self.each[part] = per_term(xp, given, terms)[:, 0]

    def outside(self) -> Iterator[tuple[slice, slice]]:
        """The tiles of negatives: of a symmetric table one of each two."""
        for i, rows in enumerate(self.blocks.parts):
            for k, columns in enumerate(self.blocks.parts):
                if k > i or (k < i and self.b is not self.a):
                    yield rows, columns

    def sides(self, rows: slice, columns: slice) -> tuple[Prepared, Prepared]:
        """The prepared rows of a tile."""
        return self.cut[0][rows.start], self.cut[1][columns.start]

    def places(self, rows: slice, columns: slice) -> tuple[Array, Array]:
        """Where a tile's gradients go."""
        return self.into[0][rows], self.into[1][columns]

    def ran(self, losses: Array) -> Ran:
        """What the engine asks of an executor, in the items' own order."""
        losses = where(self.xp, self.terms > 0, losses, 0.0)
        right = None if self.b is self.a else self.into[1]
        return Ran(self._back(losses), self._back(self.terms), self._back(self.into[0]), right)

    def _back(self, values: Array) -> Array:
        if self.blocks.order is None:
            return values
        given = self.xp.zeros_like(values)
        given[self.blocks.order] = values
        return given


class HalfTiles:
    """What half tiles say of themselves."""

    way: ClassVar[str] = f"half tiles of {BLOCK}"
    # Three tiles.
    elements: ClassVar[int] = 3 * BLOCK**2


@dataclass
class ApartTiles(HalfTiles):
    """A sum over pairs in one pass: 1.5 products of the table's size, half of one where no negative is in reach."""

    xp: Namespace
    loss: Apart
    blocks: Blocks
    side: Prepared
    units: ClassVar[float] = 1.5

    def run(self, gradient: bool, upstream: Array | None) -> Ran:
        """Diagonal blocks by the loss's own strip, the others as negatives."""
        xp, loss, tiles = self.xp, self.loss, Tiles(self.xp, self.blocks, self.side, self.side, upstream)
        losses, pair = zeros(xp, (tiles.each.shape[0],), tiles.a.rows), None
        for part in self.blocks.parts:
            pair = self.blocks.pair(part)
            tiles.count(part, loss.terms(xp, pair, pair.weight))
            sides = tiles.sides(part, part)
            table = loss.measure.table(xp, *sides, at=0)
            value, weight = loss.strip(xp, table.own(xp, loss.measure), pair)
            losses[part] = xp.reshape(value, (-1,))
            if gradient:
                weight *= tiles.each[part, None]
                loss.measure.pull(xp, table, weight, sides, tiles.places(part, part))
        if pair is not None:
            for rows, columns in tiles.outside():
                self._negatives(tiles, pair, rows, columns, losses, gradient)
        return tiles.ran(losses)

    def _negatives(self, tiles: Tiles, pair: Pair, rows: slice, columns: slice, losses: Array, gradient: bool) -> None:
        xp, loss, sides = self.xp, self.loss, tiles.sides(rows, columns)
        table = loss.measure.within(xp, *sides, loss.reach)
        if table is None:
            return
        # What stands before a negative is the same in every block.
        down = loss.factors_of(xp, pair, losses)[1]
        value, weight = loss.negative(xp, table.own(xp, loss.measure))
        for part, axis in ((rows, 1), (columns, 0)):
            share = losses[part]
            share += down * xp.sum(value, axis=axis)
        if gradient:
            each = down * tiles.each
            weight *= each[rows, None] + each[None, columns]
            loss.measure.pull(xp, table, weight, sides, tiles.places(rows, columns))


def apart_tiles(
    loss: Apart, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]
) -> ApartTiles | None:
    """Half tiles of a batch against itself, where its relation and size allow them."""
    if sides[0] is not sides[1] or sides[0].rows.shape[0] < LEAST:
        return None
    cut = blocks(xp, bound)
    return None if cut is None else ApartTiles(xp, loss, cut, sides[0])
