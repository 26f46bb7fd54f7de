"""Half tiles of a loss that feels its negatives through their log-sum-exp: two passes over the tiles.

The first sums the exponentials of every tile over its rows and its columns, under one shift, 0 until an exponent
calls for more; the second weighs the tiles. A batch against itself costs two products of its table's size; two aligned
batches, asked in both directions, four. Where an anchor's sum is lost below the shared shift, strips do it instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nearfar._arrays import Array, Namespace, exponential_base, times, to_power, where, zeros
from nearfar.engine.half_tiles import Tiles
from nearfar.engine.rules import Pooled, felt
from nearfar.engine.sums import Ran
from nearfar.measures import Dot
from nearfar.measures.base import Prepared, Table
from nearfar.relations import BoundRelation
from nearfar.relations.blocks import Blocks, blocks

# Below this many items one pass over strips is as fast as two over half tiles.
LEAST = 2048
# Exponents this far above the shift leave room for the sum of any number of them in float32.
HIGHEST = 60.0


class Sums:
    """Sums of exponentials of all rows and columns under a shift, which grows where they would overflow.

    The exponents of tiles are to the library's cheapest base: multiplied by ``unit``, as ``shift`` is.
    """

    def __init__(self, xp: Namespace, rows: Array, columns: Array | None) -> None:
        self.xp, self.shift, self.begun = xp, 0.0, False
        self.base = exponential_base(rows)
        self.unit = 1 / math.log(self.base)
        self.highest = HIGHEST * self.unit
        self.rows = zeros(xp, (rows.shape[0],), rows, xp.float64)
        self.columns = self.rows if columns is None else zeros(xp, (columns.shape[0],), columns, xp.float64)

    def in_unit(self, z: Array) -> Array:
        """Exponents to the base; overwrites ``z``."""
        if self.unit != 1:
            z *= self.unit
        return z

    def add(self, z: Array, rows: slice, columns: slice | None, within: float = math.inf) -> None:
        """Add a tile of exponents, which is overwritten; none lies farther ``within`` from 0 than that."""
        xp = self.xp
        if self.shift or not within <= self.highest:
            top = float(xp.max(z))
            if top == -math.inf:
                return
            self._shift_for(top)
        self.begun = True
        if self.shift:
            z -= self.shift
        z = to_power(xp, z)
        # Through views: ``sums[rows] += …`` would write each share twice.
        share = self.rows[rows]
        share += xp.sum(z, axis=1)
        if columns is not None:
            share = self.columns[columns]
            share += xp.sum(z, axis=0)

    def _shift_for(self, top: float) -> None:
        if not self.begun and top < -self.highest:
            self.shift = top
        elif top - self.shift > self.highest:
            for sums in (self.rows,) if self.columns is self.rows else (self.rows, self.columns):
                sums *= self.base ** (self.shift - top + self.highest)
            self.shift = top - self.highest

    def kept(self, dtype: object, negatives: Array) -> bool:
        """Whether no sum lost what counts below the smallest number of the tiles' dtype."""
        info = self.xp.finfo(dtype)
        least = negatives.shape[0] * float(info.smallest_normal) / float(info.eps)
        return all(bool(self.xp.all((sums > least) | (negatives == 0))) for sums in (self.rows, self.columns))

    def weights(self, z: Array) -> Array:
        """``base ** z`` under the same shift; overwrites ``z``."""
        if self.shift:
            z -= self.shift
        return to_power(self.xp, z)

    def pool(self, part: slice, of_columns: bool, dtype: object) -> Array:
        """Log-sum-exp of a block's items as a column; −inf without a negative."""
        sums = (self.columns if of_columns else self.rows)[part, None]
        some = where(self.xp, sums > 0, sums, 1.0)
        pool = where(self.xp, sums > 0, self.xp.log(some) + self.shift / self.unit, -math.inf)
        return self.xp.astype(pool, dtype)


@dataclass
class PooledTiles:
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
        negatives = zeros(xp, (tiles.each.shape[0],), tiles.each)
        for part in self.blocks.parts:
            pair = self.blocks.pair(part)
            negatives[part] = pair.negative_count[:, 0]
            tiles.count(part, loss.terms(xp, pair, pair.weight))
            z, _ = loss.exponent(xp, self._table(tiles, part).values)
            sums.add(sums.in_unit(pair.negative_logits(z)), part, None if right is None else part)
        scaled, within = self._scaled(tiles, sums.unit)
        for rows, columns in tiles.outside():
            sums.add(self._exponents(tiles, sums, scaled, rows, columns)[1], rows, columns, within)
        if not sums.kept(dtype, negatives):
            return None
        losses = zeros(xp, negatives.shape, tiles.each)
        factors = (xp.zeros_like(losses), xp.zeros_like(losses))
        for part in self.blocks.parts:
            self._diagonal(tiles, sums, part, losses, factors, gradient)
        for rows, columns in tiles.outside() if gradient else ():
            sides = tiles.sides(rows, columns)
            table, z, slope = self._exponents(tiles, sums, scaled, rows, columns)
            left, below = factors[0][rows, None], factors[0 if right is None else 1][None, columns]
            if isinstance(slope, int | float) or slope.ndim == 0:
                left, below, slope = left * slope, below * slope, None
            weight = sums.weights(z)
            weight *= left + below
            if slope is not None:
                weight *= slope
            loss.measure.pull(xp, table, weight, sides, tiles.places(rows, columns))
        return tiles.ran(losses)

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

    def _exponents(
        self, tiles: Tiles, sums: Sums, scaled: Array | None, rows: slice, columns: slice
    ) -> tuple[Table, Array, Any]:
        """A tile of negatives, its exponents to the base and their slope; ``scaled`` rows make them at once."""
        if scaled is not None:
            z = scaled[rows] @ tiles.b.rows[columns].T
            return Table(z), z, self.loss.linear
        table = self.loss.measure.table(self.xp, *tiles.sides(rows, columns))
        z, slope = self.loss.exponent(self.xp, table.own(self.xp, self.loss.measure))
        return table, sums.in_unit(z), slope

    def _diagonal(
        self, tiles: Tiles, sums: Sums, part: slice, losses: Array, factors: tuple[Array, Array], gradient: bool
    ) -> None:
        """Losses of a block's anchors, what stands before their negatives, and the block's own gradient."""
        xp, loss, pair = self.xp, self.loss, self.blocks.pair(part)
        table, each = self._table(tiles, part), tiles.each[part, None]
        values = table.own(xp, loss.measure)
        positive = pair.take(values)
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
