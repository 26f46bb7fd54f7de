r"""Half tiles: the supervised contrastive loss of a batch against itself, each pair of items met once.

The table is symmetric, so a tile serves its rows and its columns: one pass gives the log-sum-exps :math:`L_i`, a second
the gradient, whose weight of a pair is symmetric too,

.. math::
    \frac{\partial}{\partial e_i} \sum_k q_k \ell_k = \frac1\tau \Big( \sum_{j \ne i} (q_i p_{ij} + q_j p_{ji}) e_j
    - \frac{q_i}{P_i} (C_i - e_i) - \sum_{k \in c_i, k \ne i} \frac{q_k}{P_k} e_k \Big),
    \qquad p_{ij} = e^{s_{ij}/\tau - L_i}

with :math:`C_i` the sum of the rows of i's class: positives need no mask. Two products of the table's size instead of
three. On unit rows no logit exceeds :math:`1/\tau`, which is the shift of every exponential.
"""

from __future__ import annotations

import math
from typing import Any

from nearfar._arrays import Array, Namespace, add_product, add_rows, arange, where, zeros
from nearfar.measures import Cosine, Measure
from nearfar.relations.labels import BoundLabels

TILE = 512
# Below this many items one strip is as fast.
LEAST = 2048


def fits(xp: Namespace, temperature: float, measure: Measure, bound: Any, rows: Array) -> bool:
    """Whether half tiles give the same: labels on unit rows, and no exponential below the smallest number."""
    lowest = -math.log(float(xp.finfo(rows.dtype).smallest_normal))
    return (
        type(measure) is Cosine
        and isinstance(bound, BoundLabels)
        and bound.is_self
        and rows.shape[0] >= LEAST
        and 2 / temperature < lowest - math.log(rows.shape[0])
    )


class HalfTiles:
    """The loss on unit rows and their labels.

    Args:
        xp: The array namespace.
        temperature: τ.
        bound: The labels.
        rows: Unit rows; shape (items, features).
    """

    def __init__(self, xp: Namespace, temperature: float, bound: BoundLabels, rows: Array) -> None:
        self.xp, self.temperature, self.bound, self.unit = xp, temperature, bound, rows
        self.scaled = rows * math.sqrt(1 / temperature)
        self.positives = xp.astype(bound.positives, rows.dtype)
        self.share = where(xp, self.positives > 0, 1 / where(xp, self.positives > 0, self.positives, 1.0), 0.0)
        self.lse = self._log_sum_exp()

    def losses(self) -> Array:
        """One loss an anchor, 0 without a positive."""
        others = self._class_sums(self.unit) - self.unit
        positive = self.xp.sum(self.unit * others, axis=1) * self.share / self.temperature
        return where(self.xp, self.positives > 0, self.lse - positive, 0.0)

    def terms(self) -> Array:
        """1 for an anchor with a positive."""
        return self.xp.astype(self.positives > 0, self.unit.dtype)

    def gradient(self, upstream: Array) -> Array:
        """Gradient of the rows of ``Σ upstream · loss``; upstream is 0 for anchors that do not count."""
        xp, total = self.xp, self.xp.zeros_like(self.unit)
        factor = upstream * xp.exp(1 / self.temperature - self.lse)
        for a, b in self._tiles():
            weight = self._exponentials(a, b)
            weight *= factor[a, None] + factor[None, b]
            add_product(total[a], weight, self.unit[b])
            if a != b:
                add_product(total[b], weight.T, self.unit[a])
        pulled = upstream * self.share
        total -= pulled[:, None] * (self._class_sums(self.unit) - self.unit)
        mine = pulled[:, None] * self.unit
        return (total - (self._class_sums(mine) - mine)) / self.temperature

    def _log_sum_exp(self) -> Array:
        xp = self.xp
        sums = zeros(xp, (self.unit.shape[0],), self.unit, xp.float64)
        for a, b in self._tiles():
            tile = self._exponentials(a, b)
            sums[a] += xp.astype(xp.sum(tile, axis=1), xp.float64)
            if a != b:
                sums[b] += xp.astype(xp.sum(tile, axis=0), xp.float64)
        return xp.astype(xp.log(sums) + 1 / self.temperature, self.unit.dtype)

    def _tiles(self) -> list[tuple[slice, slice]]:
        """Every pair of blocks once, in a fixed order."""
        starts = range(0, self.unit.shape[0], TILE)
        blocks = [slice(k, min(k + TILE, self.unit.shape[0])) for k in starts]
        return [(a, b) for i, a in enumerate(blocks) for b in blocks[i:]]

    def _exponentials(self, a: slice, b: slice) -> Array:
        """exp((s − 1) / τ) on a tile, 0 for an item with itself."""
        tile = self.scaled[a] @ self.scaled[b].T
        tile -= 1 / self.temperature
        tile = self.xp.exp(tile, out=tile) if hasattr(tile, "__setitem__") else self.xp.exp(tile)
        if a == b:
            places = arange(self.xp, tile.shape[0], tile)
            tile[places, places] = 0.0
        return tile

    def _class_sums(self, rows: Array) -> Array:
        """For each item the sum of its class's rows."""
        sums = add_rows(self.xp.zeros_like(rows), self.bound.first, rows)
        return sums[self.bound.first]
