"""Sums of exponentials of the rows and the columns of a table that is met tile by tile."""

from __future__ import annotations

import math

from nearfar._arrays import Array, Namespace, exponential_base, to_power, where, zeros
from nearfar.engine.mining import Kept

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

    def add(
        self, z: Array, rows: slice, columns: slice | None, within: float = math.inf, kept: Kept | None = None
    ) -> None:
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
        share += xp.sum(z if kept is None else kept[0] * z, axis=1)
        if columns is not None:
            share = self.columns[columns]
            share += xp.sum(z if kept is None else kept[1] * z, axis=0)

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
