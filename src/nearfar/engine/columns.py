"""A loss on a table whose references come block by block, since no process holds them all.

A pooled loss has them come twice: the first lap pools each anchor's negatives and collects its positives, the second
weighs every pair. Four products of the table's size. A sum over pairs has them come once. Where many processes hold
some references each and all anchors, pools and positives are put together between the laps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from nearfar._arrays import Array, Namespace, exp_pair, exp_sum, exponential, times, where, zeros
from nearfar.engine.peers import Peers
from nearfar.engine.rules import Apart, Pooled, apart, felt, parts_of
from nearfar.engine.strips import moments, tall
from nearfar.engine.sums import Ran
from nearfar.measures.base import Prepared, Similarity, Table
from nearfar.relations import Pair
from nearfar.relations.labels import BoundLabels, LabelPair

if TYPE_CHECKING:
    from nearfar.engine.task import Task

INF = float("inf")


@dataclass
class Counts:
    """How many positives and negatives each anchor has among all references, and the sums over all anchors."""

    positives: Array
    negatives: Array
    totals: tuple[Array, Array]

    @classmethod
    def of(cls, xp: Namespace, own: Array, others: Array, is_self: bool, like: Array, peers: Peers | None) -> Counts:
        """From the labels of the anchors here and of all references; the anchors may be among these."""
        same = BoundLabels(xp, own, others, False, like).same
        return cls.whole(xp, same - 1 if is_self else same, others.shape[0] - same, peers)

    @classmethod
    def whole(cls, xp: Namespace, positives: Array, negatives: Array, peers: Peers | None) -> Counts:
        """From each anchor's counts; with ``peers`` each process has anchors of its own."""
        totals = xp.stack([xp.sum(count, dtype=xp.float64) for count in (positives, negatives)])
        return cls(positives, negatives, tuple(totals if peers is None else peers.total(totals)))


@dataclass
class Block:
    """Some of the references.

    Attributes:
        side: Their rows.
        codes: Their labels.
        into: Where the gradient of their rows is added.
        are_anchors: Whether they are the anchors themselves.
    """

    side: Prepared
    codes: Array
    into: Array
    are_anchors: bool = False


class Source(Protocol):
    """Where the blocks come from, and what all of them together are to the anchors."""

    @property
    def codes(self) -> Array:
        """Labels of the anchors."""
        ...

    @property
    def counts(self) -> Counts:
        """Of the anchors' pairs."""
        ...

    def lap(self, home: Prepared, prepare: Callable[[Array], Prepared], gradient: bool) -> Iterator[Block]:
        """Every block once, in the same order each time.

        ``home`` are the references that lie here; ``prepare`` makes rows of others. With ``gradient`` what is added to
        a block reaches those who hold it.
        """
        ...

    @property
    def gradient(self) -> Array:
        """Of the references that lie here, after a lap with gradient."""
        ...


class Listed(Pair):
    """Each anchor's positives out of all blocks, beside one another; they are no columns of any table."""

    uniform: ClassVar[bool] = True

    def __init__(self, xp: Namespace, weight: Array, counts: Counts) -> None:
        self.xp, self.weight = xp, weight
        self.positive_count = xp.astype(counts.positives[:, None], weight.dtype)
        self.negative_count = xp.astype(counts.negatives[:, None], weight.dtype)
        self.positive_total, self.negative_total = counts.totals


@dataclass
class Columns:
    """One table, block by block, each in strips of ``height`` anchors."""

    task: Task
    source: Source
    sides: tuple[Prepared, Prepared]
    prepare: Callable[[Array], Prepared]
    height: int | None

    @property
    def xp(self) -> Namespace:
        """The array namespace."""
        return self.task.xp

    def ran(self, gradient: bool) -> Ran:
        """The loss of the anchors of this process, and the gradients of both sides' rows."""
        xp, (a, b), asked = self.xp, self.sides, self.task.moments
        count = a.rows.shape[0]
        ran = Ran(zeros(xp, (count,), a.rows), zeros(xp, (count,), a.rows, xp.float64), xp.zeros_like(a.rows))
        if "shift" in asked:
            ran.shift = zeros(xp, (count,), a.rows)
        if "scale" in asked and not isinstance(self.task.loss.measure, Similarity):
            ran.scale = zeros(xp, (), a.rows, xp.float64)
        if parts_of(self.task.loss) == "pooled":
            self._pooled(ran, cast("Pooled", self.task.loss), gradient)
        else:
            self._apart(ran, cast("Apart", self.task.loss), gradient)
        if gradient and b is a:
            ran.left += self.source.gradient
        elif gradient:
            ran.right = self.source.gradient
        return ran if self._anchors is None else self._own(ran, self._anchors)

    @property
    def _anchors(self) -> slice | None:
        """Places of this process's anchors where those of all processes are here."""
        return None if self.task.peers is None else self.task.peers.places[0]

    def _own(self, ran: Ran, own: slice) -> Ran:
        """What concerns this process's anchors; and its references, whose gradient no other process has a part of."""
        peers = cast("Peers", self.task.peers)
        if ran.right is not None:
            # What follows makes gradients whose mean over the processes is that of the mean.
            ran.right /= peers.size
        shift = None if ran.shift is None else peers.total(ran.shift)[own]
        return replace(ran, losses=ran.losses[own], terms=ran.terms[own], shift=shift)

    def _strips(self, block: Block) -> tuple[BoundLabels, Iterator[tuple[slice, Pair, Table]]]:
        """A block's relation to the anchors, which knows the counts of the whole table, and its strips."""
        xp, (a, _), counts = self.xp, self.sides, self.source.counts
        codes = self.source.codes
        bound = BoundLabels(xp, codes, codes if block.are_anchors else block.codes, block.are_anchors, a.rows)
        bound.positives, bound.negatives, bound.totals = counts.positives, counts.negatives, counts.totals
        references = block.side.rows.shape[0]
        height = self.height or tall(references)

        def strips() -> Iterator[tuple[slice, Pair, Table]]:
            for start in range(0, a.rows.shape[0] if references else 0, height):
                part = slice(start, min(start + height, a.rows.shape[0]))
                at = start if block.are_anchors else None
                yield part, LabelPair(bound, part), self.task.loss.measure.table(xp, a.at(part), block.side, at)

        return bound, strips()

    def _values(self, table: Table, part: slice, ran: Ran) -> Array:
        """The measure as the loss sees it, which it may overwrite."""
        task = self.task
        keep = ran.scale is not None
        values = self.xp.asarray(table.values, copy=True) if keep else table.own(self.xp, task.loss.measure)
        if task.origin is not None:
            values -= task.origin[part, None]
        return values

    def _pull(self, ran: Ran, block: Block, part: slice, table: Table, weight: Array) -> None:
        moments(self.xp, ran, part, weight, table.values)
        sides = self.sides[0].at(part), block.side
        self.task.loss.measure.pull(self.xp, table, weight, sides, (ran.left[part], block.into))

    def _pooled(self, ran: Ran, loss: Pooled, gradient: bool) -> None:
        xp, counts, dtype = self.xp, self.source.counts, ran.losses.dtype
        pool, positive, weight = self._first(ran, loss)
        if self._anchors is not None:
            pool, positive, weight = _together(xp, cast("Peers", self.task.peers), pool, positive, weight)
        pool = xp.astype(pool, dtype)[:, None]
        listed = Listed(xp, weight, counts)
        value, by_pool, by_positive = loss.combine(xp, positive, pool, listed)
        share = self._count(ran, loss, listed)
        ran.losses += times(xp, share, xp.reshape(value, (-1, 1)))[:, 0]
        if not gradient:
            return
        by_pool, by_positive = times(xp, share, by_pool), times(xp, share, by_positive)
        pool, column = where(xp, pool != -INF, pool, 0.0), 0
        for block in self._lap(True):
            bound, strips = self._strips(block)
            for part, pair, table in strips:
                z, slope = loss.exponent(xp, self._values(table, part, ran))
                z = pair.negative_logits(z)
                z -= pool[part]
                push = felt(xp, exponential(xp, z), by_pool[part], slope)
                pull = by_positive[part, column : column + bound.longest]
                self._pull(ran, block, part, table, pair.add(push, where(xp, pair.weight > 0, pull, 0.0)))
            column += bound.longest

    def _first(self, ran: Ran, loss: Pooled) -> tuple[Array, Array, Array]:
        """Log-sum-exp over each anchor's negatives, the measure at its positives, and which of these places count."""
        xp, (a, _) = self.xp, self.sides
        count = a.rows.shape[0]
        pool, lists = zeros(xp, (count,), a.rows, xp.float64) - INF, []
        for block in self._lap(False):
            bound, strips = self._strips(block)
            positive, weight = (zeros(xp, (count, bound.longest), a.rows) for _ in range(2))
            for part, pair, table in strips:
                values = self._values(table, part, ran)
                positive[part], weight[part] = pair.take(values), pair.weight
                z = pair.negative_logits(loss.exponent(xp, values)[0])
                there = xp.astype(exp_sum(xp, z)[0][:, 0], xp.float64)
                pool[part] = exp_pair(xp, pool[part], there)[0]
            lists.append((positive, weight))
        positive, weight = (xp.concat(list(of_all), axis=1) for of_all in zip(*lists, strict=True))
        return pool, positive, weight

    def _apart(self, ran: Ran, loss: Apart, gradient: bool) -> None:
        xp = self.xp
        share = self._count(ran, loss, Listed(xp, ran.losses[:, None], self.source.counts))
        for block in self._lap(gradient):
            for part, pair, table in self._strips(block)[1]:
                value, weight = apart(loss, xp, self._values(table, part, ran), pair)
                ran.losses[part] += xp.reshape(value, (-1,))
                if gradient:
                    weight *= share[part]
                    self._pull(ran, block, part, table, weight)
        if self._anchors is not None:
            ran.losses = cast("Peers", self.task.peers).total(ran.losses)
        ran.losses = times(xp, share[:, 0], ran.losses)

    def _count(self, ran: Ran, loss: Pooled | Apart, pair: Pair) -> Array:
        """Take the terms of the anchors; a column of 1 where there are any."""
        xp = self.xp
        ran.terms += xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,))
        return xp.astype(ran.terms > 0, ran.losses.dtype)[:, None]

    def _lap(self, gradient: bool) -> Iterator[Block]:
        return self.source.lap(self.sides[1], self.prepare, gradient)


def _together(xp: Namespace, peers: Peers, pool: Array, positive: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Pools, and each anchor's one positive, of the references of all processes."""
    top = peers.largest(pool)
    safe = where(xp, top != -INF, top, 0.0)
    found = zeros(xp, (pool.shape[0], 3), pool)
    found[:, 0] = xp.exp(pool - safe)
    if positive.shape[1]:
        found[:, 1] = xp.astype(times(xp, weight, positive)[:, 0], pool.dtype)
        found[:, 2] = xp.astype(weight[:, 0], pool.dtype)
    found = peers.total(found)
    positive, weight = (xp.astype(found[:, k, None], positive.dtype) for k in (1, 2))
    return xp.log(found[:, 0]) + safe, positive, weight


__all__ = ["Block", "Columns", "Counts", "Source"]
