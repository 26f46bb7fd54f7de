"""Losses that need the whole table's pools before they can weigh a pair (lifted structure): two passes of strips.

The first pass pools every anchor's and every reference's negatives and keeps the positives, a list for each anchor;
between the passes the loss combines them; the second pass weighs the negatives. Four products of the table's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, add_rows, exp_sum, exponential, times, where, zeros
from nearfar.engine.passes import Lists, Passes
from nearfar.engine.sums import per_term

INF = float("inf")


@dataclass
class Pools:
    """Log-sum-exps over the negatives of the anchors (own ones) and of the references; −inf without any."""

    rows: Array
    columns: Array


class TwoPasses(Passes):
    """One table, run in strips of ``height`` of the anchors ``own``."""

    tables: ClassVar[int] = 2

    def run(self, upstream: Array | None, gradient: bool, into: tuple[Array, Array]) -> tuple[Array, Array]:
        """Losses and terms of the own anchors; their gradient is added to ``into``."""
        xp, loss = self.xp, self.loss
        pools, lists = self._first()
        count = pools.rows.shape[0]
        losses, terms = zeros(xp, (count,), self.a.rows), zeros(xp, (count,), self.a.rows, xp.float64)
        by_rows, by_columns = zeros(xp, (count,), self.a.rows), zeros(xp, (self.b.rows.shape[0],), self.a.rows)
        for start, stop in self.strips():
            part, pair = self.part(start, stop), self.bound.strip(start, stop)
            positive = lists.of(part, pair)
            others = pools.columns[pair.index]
            value, by_own, by_others, by_positive = loss.couple(xp, positive, pools.rows[part, None], others, pair)
            terms[part] = xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,))
            share = xp.astype(terms[part, None] > 0, losses.dtype)
            if upstream is not None:
                share = per_term(xp, upstream[part], terms[part])
            losses[part] = where(xp, terms[part] > 0, xp.reshape(value, (-1,)), 0.0)
            by_rows[part] = times(xp, share, by_own)[:, 0]
            add_rows(by_columns, xp.reshape(pair.index, (-1,)), xp.reshape(times(xp, share, by_others), (-1,)))
            lists.put(part, times(xp, share, by_positive))
        if gradient:
            if self.peers is not None:
                by_columns = self.peers.total(by_columns)
            self._second(pools, lists, (by_rows, by_columns), into)
        return losses, terms

    def _first(self) -> tuple[Pools, Lists]:
        xp, lists = self.xp, Lists(self.xp, self.own.stop - self.own.start, self.a.rows)
        rows = zeros(xp, (self.own.stop - self.own.start,), self.a.rows)
        top = xp.full((self.b.rows.shape[0],), -INF, dtype=rows.dtype, device=rows.device)
        sums = zeros(xp, top.shape, rows, xp.float64)
        for start, stop in self.strips():
            pair, values = self.bound.strip(start, stop), self.table(start, stop).own(xp, self.loss.measure)
            lists.put(self.part(start, stop), pair.take(values))
            z = pair.negative_logits(self.loss.exponent(xp, values)[0])
            higher = xp.maximum(top, xp.max(z, axis=0))
            safe = where(xp, higher != -INF, higher, 0.0)
            sums *= xp.astype(xp.exp(top - safe), xp.float64)
            sums += xp.astype(xp.sum(xp.exp(z - safe[None, :]), axis=0), xp.float64)
            top = higher
            rows[self.part(start, stop)] = exp_sum(xp, z)[0][:, 0]
            del values, z  # before the next strip is made
        if self.peers is not None:
            higher = self.peers.largest(top)
            safe = where(xp, higher != -INF, higher, 0.0)
            sums, top = self.peers.total(sums * xp.astype(xp.exp(top - safe), xp.float64)), higher
        found = sums != 0  # NaN is found, whatever `largest` made of it
        columns = where(xp, found, xp.astype(xp.log(where(xp, found, sums, 1.0)), top.dtype) + top, -INF)
        return Pools(rows, xp.where(top == top, columns, top)), lists

    def _second(self, pools: Pools, pulls: Lists, found: tuple[Array, Array], into: tuple[Array, Array]) -> None:
        xp, measure, (by_rows, by_columns) = self.xp, self.loss.measure, found
        columns = where(xp, pools.columns != -INF, pools.columns, 0.0)
        for start, stop in self.strips():
            part, table = self.part(start, stop), self.table(start, stop)
            pair = self.bound.strip(start, stop)
            z, slope = self.loss.exponent(xp, table.own(xp, measure))
            z = pair.negative_logits(z)
            pool = pools.rows[part, None]
            weight = xp.exp(z - where(xp, pool != -INF, pool, 0.0)) * by_rows[part, None]
            z -= columns[None, :]
            weight += exponential(xp, z) * by_columns[None, :]
            weight = pair.add(
                times(xp, weight, slope) if not isinstance(slope, float) else weight * slope, pulls.of(part, pair)
            )
            self.pull(table, weight, start, stop, into)
            del table, z, weight
