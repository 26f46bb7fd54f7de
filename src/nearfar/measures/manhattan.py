"""Manhattan distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, zeros
from nearfar.measures.base import Distance, Prepared, Table


@dataclass(frozen=True)
class Manhattan(Distance):
    r"""Manhattan distance :math:`\sum_k |x_k - y_k|`; a coordinate in which both agree has gradient 0."""

    lists: ClassVar[bool] = True

    def table(self, xp: Namespace, a: Prepared, b: Prepared, at: int | None = None) -> Table:
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

    def force(
        self, xp: Namespace, sides: tuple[Prepared, Prepared], pairs: tuple[Array, Array], weight: Array
    ) -> Array:
        """Along the signs of the differences."""
        return weight * xp.sign(sides[0].rows[pairs[0]] - sides[1].rows[pairs[1]])

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Sum of absolute differences."""
        return xp.sum(xp.abs(a[:, None, :] - b), axis=-1)

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Along the signs of the differences."""
        signed = weight[:, :, None] * xp.sign(a[:, None, :] - b)
        return xp.sum(signed, axis=1), -signed
