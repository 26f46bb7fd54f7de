"""Losses of the histograms of all positives and all negatives of a table (histogram loss): two passes of strips.

The first pass counts the negatives and keeps the positives, a list for each anchor. Between the passes each positive
is judged by the counts of the negatives, and counted with the weight that its anchor has in the result. The second
pass weighs each negative by the counts of the positives. Four products of the table's size.
"""

from __future__ import annotations

from dataclasses import dataclass

from nearfar._arrays import Array, Namespace, times, zeros
from nearfar.engine.peers import Peers
from nearfar.engine.rules import Tallied
from nearfar.engine.sums import per_term
from nearfar.measures.base import Prepared, Table
from nearfar.relations import BoundRelation


@dataclass
class TwoTallies:
    """One table, run in strips of ``height`` of the anchors ``own``."""

    xp: Namespace
    loss: Tallied
    bound: BoundRelation
    a: Prepared
    b: Prepared
    height: int
    own: slice
    peers: Peers | None = None

    def run(self, upstream: Array | None, gradient: bool, into: tuple[Array, Array]) -> tuple[Array, Array]:
        """Losses and terms of the own anchors; their gradient is added to ``into``."""
        xp, loss = self.xp, self.loss
        far, lists = self._first()
        near, pulls = xp.zeros_like(far), []
        losses, terms = [zeros(xp, (0,), self.a.rows)], [zeros(xp, (0,), self.a.rows, xp.float64)]
        for start, stop, positive in lists:
            part, pair = slice(start - self.own.start, stop - self.own.start), self.bound.strip(start, stop)
            value, slope = loss.judge(xp, positive, far)
            losses.append(xp.sum(times(xp, pair.weight, value), axis=1))
            terms.append(xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,)))
            weight = pair.weight
            if upstream is not None:
                weight = weight * per_term(xp, upstream[part], terms[-1])
            near = near + loss.tally(xp, positive, weight)
            pulls.append(times(xp, weight, slope))
        if gradient:
            near = near if self.peers is None else self.peers.total(near)
            self._second(lists, near, far, pulls, into)
        return xp.concat(losses), xp.concat(terms)

    def _strips(self) -> list[tuple[int, int]]:
        return [(k, min(k + self.height, self.own.stop)) for k in range(self.own.start, self.own.stop, self.height)]

    def _table(self, start: int, stop: int) -> Table:
        return self.loss.measure.table(self.xp, self.a.strip(start, stop), self.b, start if self.b is self.a else None)

    def _first(self) -> tuple[Array, list[tuple[int, int, Array]]]:
        """Counts of the negatives of all anchors, and the own anchors' positives."""
        xp, lists = self.xp, []
        far = self.loss.tally(xp, self.a.rows[:0], self.a.rows[:0])
        for start, stop in self._strips():
            pair, values = self.bound.strip(start, stop), self._table(start, stop).own(xp, self.loss.measure)
            lists.append((start, stop, pair.take(values)))
            far = far + self.loss.tally(xp, values, pair.weigh(pair.negatives(xp.ones_like(values), 0.0)))
        return far if self.peers is None else self.peers.total(far), lists

    def _second(
        self,
        lists: list[tuple[int, int, Array]],
        near: Array,
        far: Array,
        pulls: list[Array],
        into: tuple[Array, Array],
    ) -> None:
        xp, measure = self.xp, self.loss.measure
        for (start, stop, _), pull in zip(lists, pulls, strict=True):
            table, pair = self._table(start, stop), self.bound.strip(start, stop)
            weight = pair.negatives(self.loss.push(xp, table.own(xp, measure), near, far), 0.0)
            weight = pair.add(pair.weigh(weight), pull)
            measure.pull(xp, table, weight, (self.a.strip(start, stop), self.b), (into[0][start:stop], into[1]))
