"""The processes that share one table, as the engine sees them."""

from __future__ import annotations

from typing import Protocol

from nearfar._arrays import Array


class Peers(Protocol):
    """Each process runs its own anchors against all references."""

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    @property
    def own(self) -> slice:
        """Places of this process's anchors among the table's."""
        ...

    @property
    def places(self) -> tuple[slice | None, slice | None]:
        """Places of this process's items among the anchors and among the references of the table.

        None for a side without items of other processes: it holds this process's own ones, or what is equal on all.
        """
        ...

    def at(self, side: int) -> slice:
        """Places of this process's rows among everyone's, of the anchors' (0) or the references' (1) side."""
        ...

    def gathered(self, own: Array, side: int) -> Array:
        """Everyone's rows of a side."""
        ...

    def total(self, values: Array) -> Array:
        """The sum over all processes."""
        ...

    def largest(self, values: Array) -> Array:
        """The largest over all processes; NaN may be left out."""
        ...

    def scatter(self, left: Array, right: Array | None) -> tuple[Array | None, Array | None]:
        """Rows of both sides: of a shared side the sum over all processes, of which each keeps its own rows.

        None where no process asks for that side.
        """
        ...
