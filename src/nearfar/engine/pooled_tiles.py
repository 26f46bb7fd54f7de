"""Half tiles of a loss that feels its negatives through their log-sum-exp: two passes over the tiles.

The first sums the exponentials of every tile over its rows and its columns, under one shift, 0 until an exponent
calls for more; the second weighs the tiles. A batch against itself costs two products of its table's size; two aligned
batches, asked in both directions, four. Where an anchor's sum is lost below the shared shift, strips do it instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

from nearfar._arrays import Array, Namespace, times, where, zeros
from nearfar.engine.half_tiles import LEAST, HalfTiles, Tiles
from nearfar.engine.mining import Mining
from nearfar.engine.rules import Mined, Pooled, felt
from nearfar.engine.sums import Ran
from nearfar.engine.tile_sums import Sums
from nearfar.measures import Dot
from nearfar.measures.base import Prepared, Table
from nearfar.relations import BoundRelation
from nearfar.relations.blocks import Blocks, blocks


@dataclass
class PooledTiles(HalfTiles):
    """A pooled loss on blocks; ``right`` is None for a batch against itself."""

    xp: Namespace
    loss: Pooled
    blocks: Blocks
    left: Prepared
    right: Prepared | None = None

    @property
    def units(self) -> float:
        """Half a product for each of four passes of a symmetric table; four whole ones of two batches."""
        return 2.0 if self.right is None else 4.0

    def run(self, gradient: bool, upstream: Array | None) -> Ran | None:
        """Pool, combine block by block, weigh; None where a sum is lost below the shift."""
        xp, loss, right = self.xp, self.loss, self.right
        tiles = Tiles(xp, self.blocks, self.left, self.left if right is None else right, upstream)
        sums, dtype = Sums(xp, tiles.a.rows, None if right is None else tiles.b.rows), tiles.a.rows.dtype
        mining = Mining(xp, cast("Mined", loss), tiles) if getattr(loss, "mines", False) else None
        scaled, within = (None, math.inf) if mining is not None else self._scaled(tiles, sums.unit)
        negatives, met = self._begin(tiles, sums, mining), []
        for rows, columns in tiles.outside():
            table, kept = self._outside(tiles, scaled, rows, columns), None
            if mining is not None:
                mining.see(table.values, rows, columns)
                kept = mining.kept(table.values, rows, columns)
                if kept is None:
                    continue
            met.append((rows, columns))
            sums.add(self._exponents(table, sums, scaled is not None)[0], rows, columns, within, kept)
        if mining is not None:
            negatives[mining.none_left()] = 0.0
        if not sums.kept(dtype, negatives):
            return None
        losses = zeros(xp, negatives.shape, tiles.each)
        factors = (xp.zeros_like(losses), xp.zeros_like(losses))
        for part in self.blocks.parts:
            self._diagonal(tiles, sums, part, losses, factors, gradient, mining)
        if gradient:
            self._negatives(tiles, met, sums, factors, scaled, mining)
        return tiles.ran(losses)

    def _begin(self, tiles: Tiles, sums: Sums, mining: Mining | None) -> Array:
        """Count each anchor's terms and negatives, and pool the diagonal blocks."""
        xp, negatives = self.xp, zeros(self.xp, (tiles.each.shape[0],), tiles.each)
        for part in self.blocks.parts:
            pair, values = self.blocks.pair(part), self._table(tiles, part).values
            negatives[part] = pair.negative_count[:, 0]
            tiles.count(part, self.loss.terms(xp, pair, pair.weight))
            if mining is not None:
                values = mining.begin(part, values, pair)
            z = pair.negative_logits(self.loss.exponent(xp, values)[0])
            sums.add(sums.in_unit(z), part, None if self.right is None else part)
        return negatives

    def _negatives(
        self,
        tiles: Tiles,
        met: list[tuple[slice, slice]],
        sums: Sums,
        factors: tuple[Array, Array],
        scaled: Array | None,
        mining: Mining | None,
    ) -> None:
        """The gradient of the tiles outside the diagonal that have a pair that counts."""
        xp, measure = self.xp, self.loss.measure
        for rows, columns in met:
            table = self._outside(tiles, scaled, rows, columns)
            kept = None if mining is None else mining.kept(table.values, rows, columns)
            z, slope = self._exponents(table, sums, scaled is not None)
            left, below = factors[0][rows, None], factors[0 if self.right is None else 1][None, columns]
            if isinstance(slope, int | float) or slope.ndim == 0:
                left, below, slope = left * slope, below * slope, None
            weight = sums.weights(z)
            weight *= left + below if kept is None else kept[0] * left + kept[1] * below
            if slope is not None:
                weight *= slope
            measure.pull(xp, table, weight, tiles.sides(rows, columns), tiles.places(rows, columns))

    def _table(self, tiles: Tiles, part: slice) -> Table:
        return self.loss.measure.table(self.xp, *tiles.sides(part, part), at=0 if self.right is None else None)

    def _scaled(self, tiles: Tiles, unit: float) -> tuple[Array | None, float]:
        """Rows whose products are exponents to the base at once, and what no exponent exceeds; None, ∞."""
        xp, linear = self.xp, self.loss.linear if isinstance(self.loss.measure, Dot) else None
        if linear is None:
            return None, math.inf
        scaled = tiles.a.rows * (linear * unit)
        longest = [float(xp.max(xp.sum(rows * rows, axis=1))) for rows in (scaled, tiles.b.rows)]
        # The products' rounding is far below HIGHEST's room.
        return scaled, math.sqrt(longest[0] * longest[1])

    def _outside(self, tiles: Tiles, scaled: Array | None, rows: slice, columns: slice) -> Table:
        """A tile of negatives; of ``scaled`` rows its values are exponents to the base at once."""
        if scaled is not None:
            return Table(scaled[rows] @ tiles.b.rows[columns].T)
        return self.loss.measure.table(self.xp, *tiles.sides(rows, columns))

    def _exponents(self, table: Table, sums: Sums, scaled: bool) -> tuple[Array, Any]:
        """The exponents of a tile to the base, and their slope."""
        if scaled:
            return table.values, self.loss.linear
        z, slope = self.loss.exponent(self.xp, table.own(self.xp, self.loss.measure))
        return sums.in_unit(z), slope

    def _diagonal(
        self,
        tiles: Tiles,
        sums: Sums,
        part: slice,
        losses: Array,
        factors: tuple[Array, Array],
        gradient: bool,
        mining: Mining | None,
    ) -> None:
        """Losses of a block's anchors, what stands before their negatives, and the block's own gradient."""
        xp, loss, pair = self.xp, self.loss, self.blocks.pair(part)
        table, each = self._table(tiles, part), tiles.each[part, None]
        values = table.own(xp, loss.measure)
        positive = pair.take(values)
        if mining is not None:
            positive, values = mining.hard(part, positive, values, pair)
        questions = 1 if self.right is None else 2
        by_positive: Array | float = 0.0
        for k in range(questions):
            pool = sums.pool(part, k == 1, values.dtype)
            value, by_pool, own = loss.combine(xp, positive, pool, pair)
            losses[part] += xp.reshape(value, (-1,)) / questions
            total = (sums.columns if k else sums.rows)[part, None]
            share = each / questions
            by_pool = times(xp, share, by_pool)
            factor = where(xp, total > 0, by_pool / xp.astype(where(xp, total > 0, total, 1.0), values.dtype), 0.0)
            factors[k][part] = factor[:, 0]
            by_positive = by_positive + times(xp, share, own)
        if not gradient:
            return
        z, slope = loss.exponent(xp, values)
        z = sums.in_unit(pair.negative_logits(z))
        factor = factors[0][part, None] if questions == 1 else factors[0][part, None] + factors[1][None, part]
        weight = pair.add(felt(xp, sums.weights(z), factor, slope), by_positive)
        loss.measure.pull(xp, table, weight, tiles.sides(part, part), tiles.places(part, part))


def pooled_tiles(
    loss: Pooled, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]
) -> PooledTiles | None:
    """Tiles of a batch against itself, or of two aligned batches, where the relation and the size allow them."""
    left, right = sides
    if left.rows.shape[0] < LEAST:
        return None
    cut = blocks(xp, bound)
    if cut is None:
        return None
    return PooledTiles(xp, loss, cut, left, None if right is left else right)
