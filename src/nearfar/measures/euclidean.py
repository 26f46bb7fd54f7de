"""The Euclidean family: right for near pairs, whose distance a matrix product would cancel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import (
    Array,
    Namespace,
    add_product,
    fill_diagonal,
    limits,
    on_host,
    product_plus_row,
    relu,
    root,
    where,
    with_turned,
    zeros,
)
from nearfar.measures.base import GATHERED, Distance, Near, Prepared, Table, normalise, unit_difference, unnormalise

# A squared distance below this share of the squared norms comes out of the matrix product with a relative error
# above eps / (2 · 0.05), some ten units in the last place: it is computed again from the difference itself.
NEAR = 0.05
# Squared length below which the difference of two unit rows has lost more than some 30 units in its last place.
CLOSE = 1e-3


@dataclass(frozen=True)
class Euclidean(Distance):
    r"""Euclidean distance :math:`\|x - y\|`; gradient 0 where it is 0.

    A matrix product finds the far pairs; near pairs, where it would cancel, are computed from their difference.
    """

    centres: ClassVar[bool] = True
    reads_table: ClassVar[bool] = True
    lists: ClassVar[bool] = True

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Rows relative to the centre, whose norms are as small as a shift can make them."""
        rows = x if centre is None else x - centre
        return Prepared(rows, x, xp.sum(rows * rows, axis=-1))

    def table(self, xp: Namespace, a: Prepared, b: Prepared, at: int | None = None) -> Table:
        """One matrix product, and differences for the near pairs; an anchor is at distance 0 from itself."""
        squared = self._squares(xp, a, b)
        return self._finish(xp, a, b, squared, self._near(xp, a, b, squared, at), at)

    def within(self, xp: Namespace, a: Prepared, b: Prepared, reach: float) -> Table | None:
        """One matrix product; without a near pair its smallest entry tells whether any is in reach."""
        squared = self._squares(xp, a, b)
        near = self._near(xp, a, b, squared, None)
        if near is None and bool(self._from_square(xp, relu(xp, xp.min(squared)[None])) >= reach):
            return None
        return self._finish(xp, a, b, squared, near, None)

    def _squares(self, xp: Namespace, a: Prepared, b: Prepared) -> Array:
        squared = product_plus_row(xp, a.rows, b.rows, -2, b.squares)
        squared += a.squares[:, None]
        return squared

    def _finish(
        self, xp: Namespace, a: Prepared, b: Prepared, squared: Array, near: tuple[Array, Array] | None, at: int | None
    ) -> Table:
        if at is not None:
            squared = fill_diagonal(xp, squared, at, 0.0)
        if near is None:
            return Table(self._from_square(xp, squared), None, at)
        found = Near(*near, self._lengths(xp, a, b, *near))
        values = self._from_square(xp, relu(xp, squared))
        values[found.anchor, found.reference] = self._from_length(found.length)
        if at is not None:
            values = fill_diagonal(xp, values, at, 0.0)
        return Table(values, found, at)

    def _near(
        self, xp: Namespace, a: Prepared, b: Prepared, squared: Array, at: int | None
    ) -> tuple[Array, Array] | None:
        """Places of the pairs that the product cannot be trusted with; None without any.

        The smallest entry of a row, with the largest square beside it, rules most rows out in one pass.
        """
        if squared.shape[0] == 0 or squared.shape[1] == 0:
            return None
        smallest, most, eps = limits(xp, squared.dtype)
        floor = smallest / eps**2
        if at is not None:
            squared = fill_diagonal(xp, squared, at, float("inf"))
        top = xp.max(b.squares)
        if on_host(squared):
            # Without a near pair two numbers tell.
            bound = float(xp.max(a.squares)) + float(top)
            if 2 * bound < most and float(xp.min(squared)) > NEAR * (bound + 2 * floor):
                return None
        # Negated, so that squares that under- or overflowed, and NaN, are near as well.
        finite = 4 * (a.squares + top) < float("inf")
        rows = xp.nonzero(~(finite & (xp.min(squared, axis=1) > NEAR * (a.squares + top + 2 * floor))))[0]
        if rows.shape[0] == 0:
            return None
        part = squared if rows.shape[0] == squared.shape[0] else squared[rows]
        limit = NEAR * (a.squares[rows] + floor)[:, None] + NEAR * (b.squares + floor)[None, :]
        anchor, reference = xp.nonzero(~((part > limit) & (finite[rows, None] | (part < float("inf")))))
        return rows[anchor], reference

    def _lengths(self, xp: Namespace, a: Prepared, b: Prepared, anchor: Array, reference: Array) -> Array:
        length = zeros(xp, (anchor.shape[0],), a.given)
        step = max(1, GATHERED // a.given.shape[1])
        for k in range(0, anchor.shape[0], step):
            part = slice(k, k + step)
            length[part] = normalise(xp, self._difference(xp, a, b, anchor[part], reference[part]))[1][:, 0]
        return length

    def _difference(self, xp: Namespace, a: Prepared, b: Prepared, i: Array, j: Array) -> Array:
        """What near pairs' distances are the lengths of."""
        return a.given[i] - b.given[j]

    def _from_square(self, xp: Namespace, squared: Array) -> Array:
        """The measure; overwrites ``squared`` where the library allows."""
        return root(xp, squared)

    def _from_length(self, length: Array) -> Array:
        return length

    def _radial(self, values: Array, weight: Array) -> tuple[Array, float]:
        """Weight of the difference x − y in the gradient of x, for far pairs, in place; and a factor."""
        weight /= values
        return weight, 1.0

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """Two matrix products for the far pairs, one where both sides are the same; differences for the near ones."""
        (a, b), (left, right), near = sides, into, table.near
        if near is not None:
            self.pull_pairs(xp, (near.anchor, near.reference), weight[near.anchor, near.reference], sides, into)
        radial, factor = self._radial(table.values, weight)
        if table.at is not None:
            radial = fill_diagonal(xp, radial, table.at, 0.0)
        if near is not None:
            radial[near.anchor, near.reference] = 0.0
        if a is b:
            radial = with_turned(xp, radial)
        left += factor * xp.sum(radial, axis=1)[:, None] * a.rows
        add_product(xp, left, radial, b.rows, -factor)
        if a is not b:
            right += factor * xp.sum(radial, axis=0)[:, None] * b.rows
            add_product(xp, right, radial.T, a.rows, -factor)

    def force(
        self, xp: Namespace, sides: tuple[Prepared, Prepared], pairs: tuple[Array, Array], weight: Array
    ) -> Array:
        """Along the differences of the pairs."""
        unit, length = normalise(xp, self._difference(xp, *sides, *pairs))
        return unit * self._force(weight, length)

    def _force(self, weight: Array, length: Array) -> Array:
        """∂loss/∂‖x − y‖ from ∂loss/∂measure."""
        return weight

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Length of the differences."""
        difference = xp.reshape(a[:, None, :] - b, (-1, b.shape[2]))
        return self._from_length(xp.reshape(normalise(xp, difference)[1], tuple(b.shape[:2])))

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Along the differences."""
        unit, length = normalise(xp, xp.reshape(a[:, None, :] - b, (-1, b.shape[2])))
        force = xp.reshape(unit * self._force(xp.reshape(weight, (-1, 1)), length), tuple(b.shape))
        return xp.sum(force, axis=1), -force


@dataclass(frozen=True)
class SquaredEuclidean(Euclidean):
    r"""Squared Euclidean distance :math:`\|x - y\|^2`."""

    reads_table: ClassVar[bool] = False

    def _from_square(self, xp: Namespace, squared: Array) -> Array:
        return squared

    def _from_length(self, length: Array) -> Array:
        return length * length

    def _radial(self, values: Array, weight: Array) -> tuple[Array, float]:
        return weight, 2.0

    def _force(self, weight: Array, length: Array) -> Array:
        return 2 * weight * length


@dataclass(frozen=True)
class CosineDistance(Euclidean):
    r"""Cosine distance :math:`1 - \cos(x, y) = \tfrac12 \|x/\|x\| - y/\|y\|\|^2`, right for near pairs too.

    A zero vector is at distance 1 from everything, with gradient 0.
    """

    centres: ClassVar[bool] = False
    reads_table: ClassVar[bool] = False

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Unit rows; a zero row has the square of one too, so that its distance comes out as 1."""
        unit, norm = normalise(xp, x)
        return Prepared(unit, unit, xp.ones_like(norm[:, 0]), norm, x)

    def _difference(self, xp: Namespace, a: Prepared, b: Prepared, i: Array, j: Array) -> Array:
        """Of unit rows; of close ones as the rows themselves have it, before they were rounded to unit rows."""
        step = super()._difference(xp, a, b, i, j)
        close = xp.nonzero(xp.sum(step * step, axis=1) < CLOSE)[0]
        if close.shape[0]:
            one, other = a.at(i[close]), b.at(j[close])
            step[close] = unit_difference(xp, (one.raw, one.rows, one.norm), (other.raw, other.rows, other.norm))
        return step

    def unprepare(self, xp: Namespace, side: Prepared, gradient: Array) -> Array:
        """Through the normalisation."""
        return unnormalise(xp, side.rows, side.norm, gradient)

    def _from_square(self, xp: Namespace, squared: Array) -> Array:
        return squared / 2

    def _from_length(self, length: Array) -> Array:
        return length * length / 2

    def _radial(self, values: Array, weight: Array) -> tuple[Array, float]:
        return weight, 1.0

    def _force(self, weight: Array, length: Array) -> Array:
        return weight * length

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Cosine distance row by row."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        void = (norm_a[:, None, :] == 0) | (norm_b == 0)
        step = unit_difference(xp, (a[:, None], unit_a[:, None], norm_a[:, None]), (b, unit_b, norm_b))
        square = xp.sum(step * step, axis=-1)
        return where(xp, ~void[:, :, 0], square / 2, 1.0)

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Along the differences of the unit vectors, then through both normalisations."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        step = unit_difference(xp, (a[:, None], unit_a[:, None], norm_a[:, None]), (b, unit_b, norm_b))
        force = step * weight[:, :, None]
        return unnormalise(xp, unit_a, norm_a, xp.sum(force, axis=1)), unnormalise(xp, unit_b, norm_b, -force)
