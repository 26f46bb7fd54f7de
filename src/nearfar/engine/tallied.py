"""Losses of the histograms of all positives and all negatives of a table (histogram loss): two passes of strips.

The first pass counts the negatives and keeps the positives, a list for each anchor. Between the passes each positive
is judged by the counts of the negatives, and counted with the weight that its anchor has in the result. The second
pass weighs each negative by the counts of the positives. Four products of the table's size.
"""

from __future__ import annotations

from typing import ClassVar

from nearfar._arrays import Array, times, zeros
from nearfar.engine.passes import Lists, Passes
from nearfar.engine.sums import per_term


class TwoTallies(Passes):
    """One table, run in strips of ``height`` of the anchors ``own``."""

    tables: ClassVar[int] = 2

    def run(self, upstream: Array | None, gradient: bool, into: tuple[Array, Array]) -> tuple[Array, Array]:
        """Losses and terms of the own anchors; their gradient is added to ``into``."""
        xp, loss = self.xp, self.loss
        far, lists = self._first()
        near = xp.zeros_like(far)
        losses, terms = [zeros(xp, (0,), self.a.rows)], [zeros(xp, (0,), self.a.rows, xp.float64)]
        for start, stop in self.strips():
            part, pair = self.part(start, stop), self.bound.strip(start, stop)
            positive = lists.of(part, pair)
            value, slope = loss.judge(xp, positive, far)
            losses.append(xp.sum(times(xp, pair.weight, value), axis=1))
            terms.append(xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,)))
            weight = pair.weight
            if upstream is not None:
                weight = weight * per_term(xp, upstream[part], terms[-1])
            near = near + loss.tally(xp, positive, weight)
            lists.put(part, times(xp, weight, slope))
        if gradient:
            near = near if self.peers is None else self.peers.total(near)
            self._second(lists, near, far, into)
        return xp.concat(losses), xp.concat(terms)

    def _first(self) -> tuple[Array, Lists]:
        """Counts of the negatives of all anchors, and the own anchors' positives."""
        xp, lists = self.xp, Lists(self.xp, self.own.stop - self.own.start, self.a.rows)
        far = self.loss.tally(xp, self.a.rows[:0], self.a.rows[:0])
        for start, stop in self.strips():
            pair, values = self.bound.strip(start, stop), self.table(start, stop).own(xp, self.loss.measure)
            lists.put(self.part(start, stop), pair.take(values))
            far = far + self.loss.tally(xp, values, pair.weigh(pair.negatives(xp.ones_like(values), 0.0)))
        return far if self.peers is None else self.peers.total(far), lists

    def _second(self, pulls: Lists, near: Array, far: Array, into: tuple[Array, Array]) -> None:
        xp, measure = self.xp, self.loss.measure
        for start, stop in self.strips():
            table, pair = self.table(start, stop), self.bound.strip(start, stop)
            weight = pair.negatives(self.loss.push(xp, table.own(xp, measure), near, far), 0.0)
            weight = pair.add(pair.weigh(weight), pulls.of(self.part(start, stop), pair))
            self.pull(table, weight, start, stop, into)
            del table, weight  # before the next strip is made
