"""What losses share that run a table in passes of their own: its sides, its strips, and where gradients go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace
from nearfar.engine.peers import Peers
from nearfar.measures.base import Measure, Prepared, Table


@dataclass
class Passes:
    """A table of the anchors ``own`` in strips of ``height``.

    A subclass has ``run(upstream, gradient, into)``: losses and terms of the own anchors, whose gradient is added to
    ``into``. ``tables`` and ``pulls`` count how often it makes a strip of the table and takes gradients from one;
    ``each_positive`` is true where it does so for each positive of an anchor.
    """

    tables: ClassVar[int] = 1
    pulls: ClassVar[int] = 1
    each_positive: ClassVar[bool] = False

    xp: Namespace
    loss: Any
    bound: Any
    a: Prepared
    b: Prepared
    height: int
    own: slice
    peers: Peers | None = None

    def strips(self) -> list[tuple[int, int]]:
        """First anchor of each strip, and the one after its last."""
        return [(k, min(k + self.height, self.own.stop)) for k in range(self.own.start, self.own.stop, self.height)]

    def part(self, start: int, stop: int) -> slice:
        """Places of a strip's anchors among the own ones."""
        return slice(start - self.own.start, stop - self.own.start)

    def table(self, start: int, stop: int) -> Table:
        """The measure of a strip."""
        measure: Measure = self.loss.measure
        return measure.table(self.xp, self.a.strip(start, stop), self.b, start if self.b is self.a else None)

    def pull(self, table: Table, weight: Array, start: int, stop: int, into: tuple[Array, Array]) -> None:
        """Add the gradients of a strip's weights."""
        sides, places = (self.a.strip(start, stop), self.b), (into[0][start:stop], into[1])
        self.loss.measure.pull(self.xp, table, weight, sides, places)
