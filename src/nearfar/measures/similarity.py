"""Similarities: inner product and cosine."""

from __future__ import annotations

from dataclasses import dataclass

from nearfar._arrays import Array, Namespace, add_product, with_turned, zeros
from nearfar.measures.base import Prepared, Similarity, Table, normalise, unnormalise


@dataclass(frozen=True)
class Dot(Similarity):
    r"""Inner product :math:`\langle x, y \rangle`; nothing is normalised."""

    def table(self, xp: Namespace, a: Prepared, b: Prepared, at: int | None = None) -> Table:
        """One matrix product."""
        return Table(xp.matmul(a.rows, b.rows.T))

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """Two matrix products; one where both sides are the same."""
        a, b = sides
        if a is b:
            add_product(xp, into[0], with_turned(xp, weight), b.rows)
            return
        add_product(xp, into[0], weight, b.rows)
        add_product(xp, into[1], weight.T, a.rows)

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
        return unnormalise(xp, side.rows, side.norm, gradient)

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Cosine row by row."""
        return super().rows(xp, normalise(xp, a)[0], normalise(xp, b)[0])

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Inner product's chain rule, then through both normalisations."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        grad_a, grad_b = super().pull_rows(xp, values, weight, unit_a, unit_b)
        return unnormalise(xp, unit_a, norm_a, grad_a), unnormalise(xp, unit_b, norm_b, grad_b)
