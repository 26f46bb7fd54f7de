"""Measures: embeddings → one number for each pair, and the chain rule back.

A *similarity* is higher for nearer pairs (:class:`Cosine`, :class:`Dot`), a *distance* lower (:class:`Euclidean`,
:class:`SquaredEuclidean`, :class:`CosineDistance`, :class:`Manhattan`). A loss says which of the two it is defined
on and refuses the other; no flag flips a sign.

Each measure works on prepared rows (``prepare``), makes the table of a strip (``table``), carries pair weights back
to the rows (``pull``) and the rows' gradient back to the embeddings (``unprepare``). ``rows`` and ``pull_rows`` do
the same for pairs given one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, add_product, add_rows, relu, row_max, where, zeros
from nearfar._errors import InputError

# A squared distance below this share of the squared norms comes out of the matrix product with a relative error
# above eps / (2 · 0.05), some ten units in the last place: it is computed again from the difference itself.
NEAR = 0.05
# Elements of a temporary of gathered differences: 1 M values keep it inside the cache of a core.
GATHERED = 1 << 20


@dataclass
class Prepared:
    """Rows of one side of the table.

    Attributes:
        rows: What enters the products; shape (items, features).
        given: The embeddings themselves, for differences.
        squares: Squared norm of each row.
        norm: Norm taken out by normalising, a column; None where none was.
    """

    rows: Array
    given: Array
    squares: Array
    norm: Array | None = None

    def strip(self, start: int, stop: int) -> Prepared:
        """The rows ``start`` … ``stop`` − 1."""
        norm = None if self.norm is None else self.norm[start:stop]
        return Prepared(self.rows[start:stop], self.given[start:stop], self.squares[start:stop], norm)


@dataclass
class Near:
    """Pairs of a strip that were computed directly: their places and their differences' length."""

    anchor: Array
    reference: Array
    length: Array


@dataclass
class Table:
    """The measure of a strip, and which of its pairs were computed directly."""

    values: Array
    near: Near | None = field(default=None)


def normalise(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Unit rows and their norms (a column), right at any scale; a zero row stays zero with norm 0."""
    largest = row_max(xp, xp.abs(x))
    scaled = x / where(xp, largest != 0, largest, 1.0)
    length = xp.sqrt(xp.sum(scaled * scaled, axis=-1, keepdims=True))
    return scaled / where(xp, length != 0, length, 1.0), largest * length


def _unnormalise(xp: Namespace, unit: Array, norm: Array, gradient: Array) -> Array:
    """Gradient with respect to the vector behind a unit row: (g − u⟨u, g⟩) / norm, 0 at norm 0."""
    across = gradient - unit * xp.sum(unit * gradient, axis=-1, keepdims=True)
    return where(xp, norm != 0, across / where(xp, norm != 0, norm, 1.0), 0.0)


class Measure:
    """Base of the measures; ``kind`` is ``"similarity"`` or ``"distance"``."""

    kind: ClassVar[str]
    # Whether ``pull`` reads the table again, which a loss may overwrite.
    reads_table: ClassVar[bool] = False

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Rows as they enter the table; ``centre`` is taken off where the measure allows it."""
        return Prepared(x, x, zeros(xp, (x.shape[0],), x))

    def unprepare(self, xp: Namespace, side: Prepared, gradient: Array) -> Array:
        """Gradient of the rows carried back to the embeddings."""
        return gradient

    def table(self, xp: Namespace, a: Prepared, b: Prepared) -> Table:
        """Measure of every anchor in ``a`` to every reference in ``b``."""
        raise NotImplementedError

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """Add the gradients of both sides' rows for the pair weights ∂loss/∂measure to ``into``."""
        raise NotImplementedError

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Measure of ``a[i]`` to ``b[i, k]``; shapes (n, d), (n, k, d) → (n, k)."""
        raise NotImplementedError

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Gradients of ``a`` and ``b`` of :meth:`rows`."""
        raise NotImplementedError


class Similarity(Measure):
    """Higher is nearer."""

    kind = "similarity"


class Distance(Measure):
    """Lower is nearer."""

    kind = "distance"


@dataclass(frozen=True)
class Dot(Similarity):
    r"""Inner product :math:`\langle x, y \rangle`; nothing is normalised."""

    def table(self, xp: Namespace, a: Prepared, b: Prepared) -> Table:
        """One matrix product."""
        return Table(a.rows @ b.rows.T)

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """Two matrix products."""
        add_product(into[0], weight, sides[1].rows)
        add_product(into[1], weight.T, sides[0].rows)

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Inner product row by row."""
        return xp.sum(a[:, None, :] * b, axis=-1)

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Each side's gradient is the other side, weighted."""
        return xp.sum(weight[:, :, None] * b, axis=1), weight[:, :, None] * a[:, None, :]


@dataclass(frozen=True)
class Cosine(Dot):
    r"""Cosine :math:`\langle x, y \rangle / (\|x\| \|y\|)`; 0 with gradient 0 where a vector is zero."""

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Unit rows."""
        unit, norm = normalise(xp, x)
        return Prepared(unit, unit, zeros(xp, (x.shape[0],), x), norm)

    def unprepare(self, xp: Namespace, side: Prepared, gradient: Array) -> Array:
        """Through the normalisation."""
        return _unnormalise(xp, side.rows, side.norm, gradient)

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Cosine row by row."""
        return super().rows(xp, normalise(xp, a)[0], normalise(xp, b)[0])

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Inner product's chain rule, then through both normalisations."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        grad_a, grad_b = super().pull_rows(xp, values, weight, unit_a, unit_b)
        return _unnormalise(xp, unit_a, norm_a, grad_a), _unnormalise(xp, unit_b, norm_b, grad_b)


@dataclass(frozen=True)
class Euclidean(Distance):
    r"""Euclidean distance :math:`\|x - y\|`; gradient 0 where it is 0.

    A matrix product finds the far pairs; near pairs, where it would cancel, are computed from their difference.
    """

    reads_table: ClassVar[bool] = True

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Rows relative to the centre, whose norms are as small as a shift can make them."""
        rows = x if centre is None else x - centre
        return Prepared(rows, x, xp.sum(rows * rows, axis=-1))

    def table(self, xp: Namespace, a: Prepared, b: Prepared) -> Table:
        """One matrix product, and differences for the near pairs."""
        squared = (-2 * a.rows) @ b.rows.T
        squared += a.squares[:, None]
        squared += b.squares[None, :]
        floor = float(xp.finfo(squared.dtype).smallest_normal) / float(xp.finfo(squared.dtype).eps) ** 2
        limit = NEAR * (a.squares + floor)[:, None] + NEAR * (b.squares + floor)[None, :]
        # Negated, so that squares that under- or overflowed, and NaN, are near as well.
        anchor, reference = xp.nonzero(~((squared > limit) & (squared < float("inf"))))
        squared = relu(xp, squared)
        near = Near(anchor, reference, self._lengths(xp, a, b, anchor, reference))
        values = self._from_square(xp, squared)
        values[anchor, reference] = self._from_length(near.length)
        return Table(values, near)

    @staticmethod
    def _lengths(xp: Namespace, a: Prepared, b: Prepared, anchor: Array, reference: Array) -> Array:
        length = zeros(xp, (anchor.shape[0],), a.given)
        step = max(1, GATHERED // a.given.shape[1])
        for k in range(0, anchor.shape[0], step):
            part = slice(k, k + step)
            length[part] = normalise(xp, a.given[anchor[part]] - b.given[reference[part]])[1][:, 0]
        return length

    def _from_square(self, xp: Namespace, squared: Array) -> Array:
        return xp.sqrt(squared)

    def _from_length(self, length: Array) -> Array:
        return length

    def _radial(self, xp: Namespace, values: Array, weight: Array) -> Array:
        """Weight of the difference x − y in the gradient of x, for far pairs: ∂loss/∂d over d."""
        return weight / values

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """Two matrix products for the far pairs; differences for the near ones."""
        (a, b), near = sides, table.near
        radial = self._radial(xp, table.values, weight)
        if near is not None:
            beside = weight[near.anchor, near.reference]
            radial[near.anchor, near.reference] = 0.0
            felt = beside != 0
            anchor, reference, beside = near.anchor[felt], near.reference[felt], beside[felt]
            step = max(1, GATHERED // a.given.shape[1])
            for k in range(0, anchor.shape[0], step):
                part = slice(k, k + step)
                i, j = anchor[part], reference[part]
                unit, length = normalise(xp, a.given[i] - b.given[j])
                force = unit * self._force(beside[part][:, None], length)
                add_rows(into[0], i, force)
                add_rows(into[1], j, -force)
        into[0][...] += xp.sum(radial, axis=1)[:, None] * a.rows
        into[1][...] += xp.sum(radial, axis=0)[:, None] * b.rows
        add_product(into[0], radial, -b.rows)
        add_product(into[1], radial.T, -a.rows)

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

    def _radial(self, xp: Namespace, values: Array, weight: Array) -> Array:
        return 2 * weight

    def _force(self, weight: Array, length: Array) -> Array:
        return 2 * weight * length


@dataclass(frozen=True)
class CosineDistance(Euclidean):
    r"""Cosine distance :math:`1 - \cos(x, y) = \tfrac12 \|x/\|x\| - y/\|y\|\|^2`, right for near pairs too.

    A zero vector is at distance 1 from everything, with gradient 0.
    """

    reads_table: ClassVar[bool] = False

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Unit rows; a zero row gets an extra coordinate's worth of square so that its distance is 1."""
        unit, norm = normalise(xp, x)
        return Prepared(unit, unit, xp.where(norm[:, 0] != 0, xp.ones_like(norm[:, 0]), norm[:, 0]), norm)

    def unprepare(self, xp: Namespace, side: Prepared, gradient: Array) -> Array:
        """Through the normalisation."""
        return _unnormalise(xp, side.rows, side.norm, gradient)

    def table(self, xp: Namespace, a: Prepared, b: Prepared) -> Table:
        """One matrix product, and differences for the near pairs."""
        table = super().table(xp, a, b)
        # The square of a prepared row is 1, or 0 for a zero vector.
        void = (a.squares == 0)[:, None] | (b.squares == 0)[None, :]
        return Table(where(xp, ~void, table.values, 1.0), table.near)

    def _from_square(self, xp: Namespace, squared: Array) -> Array:
        return squared / 2

    def _from_length(self, length: Array) -> Array:
        return length * length / 2

    def _radial(self, xp: Namespace, values: Array, weight: Array) -> Array:
        return weight * 1

    def _force(self, weight: Array, length: Array) -> Array:
        return weight * length

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Cosine distance row by row."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        void = (norm_a[:, None, :] * norm_b == 0)[:, :, 0]
        return where(xp, ~void, super().rows(xp, unit_a, unit_b), 1.0)

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Along the differences of the unit vectors, then through both normalisations."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        grad_a, grad_b = super().pull_rows(xp, values, weight, unit_a, unit_b)
        return _unnormalise(xp, unit_a, norm_a, grad_a), _unnormalise(xp, unit_b, norm_b, grad_b)


@dataclass(frozen=True)
class Manhattan(Distance):
    r"""Manhattan distance :math:`\sum_k |x_k - y_k|`; a coordinate in which both agree has gradient 0."""

    def table(self, xp: Namespace, a: Prepared, b: Prepared) -> Table:
        """One pass over the strip for each feature."""
        values = zeros(xp, (a.rows.shape[0], b.rows.shape[0]), a.rows)
        for k in range(a.rows.shape[1]):
            values += xp.abs(a.rows[:, k, None] - b.rows[None, :, k])
        return Table(values)

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """One pass over the strip for each feature."""
        a, b = sides
        for k in range(a.rows.shape[1]):
            signed = weight * xp.sign(a.rows[:, k, None] - b.rows[None, :, k])
            into[0][:, k] += xp.sum(signed, axis=1)
            into[1][:, k] -= xp.sum(signed, axis=0)

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Sum of absolute differences."""
        return xp.sum(xp.abs(a[:, None, :] - b), axis=-1)

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Along the signs of the differences."""
        signed = weight[:, :, None] * xp.sign(a[:, None, :] - b)
        return xp.sum(signed, axis=1), -signed


def expect_kind(loss: Any, measure: Measure, kind: str) -> None:
    """Raise unless the measure is of the kind that the loss is defined on."""
    if not isinstance(measure, Measure) or measure.kind != kind:
        got = f"{type(measure).__name__}, a {measure.kind}" if isinstance(measure, Measure) else repr(measure)
        choices = "Cosine() or Dot()" if kind == "similarity" else "Euclidean(), SquaredEuclidean() or CosineDistance()"
        raise InputError(f"expected measure of {type(loss).__name__} to be a {kind}, got {got}; use {choices}")
