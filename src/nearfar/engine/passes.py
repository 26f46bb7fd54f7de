"""What losses share that run a table in passes of their own: its sides, its strips, and where gradients go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, zeros
from nearfar.engine.peers import Peers
from nearfar.measures.base import Measure, Prepared, Table
from nearfar.relations import Pair


class Lists:
    """The listed positives of all own anchors, strip after strip, in one array.

    Strips allocate and free large blocks; a small one that stays after each would leave holes that none fits into.
    """

    def __init__(self, xp: Namespace, count: int, like: Array) -> None:
        self.xp, self.values = xp, zeros(xp, (count, 0), like)

    def put(self, part: slice, values: Array) -> None:
        """Keep those of a strip, whose list may be longer than any before."""
        xp, more = self.xp, values.shape[1] - self.values.shape[1]
        if more > 0:
            wider = zeros(xp, (self.values.shape[0], more), self.values)
            self.values = xp.concat([self.values, wider], axis=1)
        self.values[part, : values.shape[1]] = values

    def of(self, part: slice, pair: Pair) -> Array:
        """Those of a strip."""
        return self.values[part, : pair.index.shape[1]]


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
