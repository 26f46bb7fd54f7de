"""The processes that share one table, as the engine sees them."""

from __future__ import annotations

from typing import Protocol

from nearfar._arrays import Array


class Peers(Protocol):
    """Each process runs its own anchors against all references.

    Attributes:
        size: How many processes there are.
        own: Places of this process's anchors among the table's.
        own_references: Places of its references; None where every process holds all of them.
    """

    size: int
    own: slice
    own_references: slice | None

    def total(self, values: Array) -> Array:
        """The sum over all processes."""
        ...

    def largest(self, values: Array) -> Array:
        """The largest over all processes."""
        ...

    def scatter(self, values: Array) -> Array:
        """The sum over all processes, of which each keeps its own rows."""
        ...
