"""All hinges of positive pairs against negative pairs of other classes, counted from sorted distances.

With all positive distances sorted, ``v_1 ≤ v_2 ≤ …``, a negative pair is active against those from one place on, which
a binary search finds. Counts and sums from that place on give its weight; how many negatives have their place up to
that of a positive, and what they sum to, gives the positive's weight and its loss. What involves the class of either
item of the negative pair comes off again, by the same search among the sorted positives of that class.

Three passes over the table: the first lists the positives, the second searches, counts and weighs the negatives, the
third weighs the positives.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, arange, tally, times, where, zeros
from nearfar._errors import InputError
from nearfar.engine.passes import Passes
from nearfar.engine.sums import per_term
from nearfar.losses.triplet_sums import triplet_sums
from nearfar.relations.labels import BoundLabels

INF = float("inf")


class Ladder:
    """Distances sorted within segments, each with one place more for what is active against none of it."""

    def __init__(self, xp: Namespace, values: Array, weights: Array, segment: Array, segments: int) -> None:
        self.xp, self.segment = xp, segment
        order = xp.argsort(values, stable=True)
        order = order[xp.argsort(segment[order], stable=True)]
        numbers = arange(xp, segments, segment)
        self.first = xp.searchsorted(segment[order], numbers, side="left")
        self.count = xp.searchsorted(segment[order], numbers, side="right") - self.first
        self.longest = int(xp.max(self.count))
        self.values = xp.concat([values[order], zeros(xp, (1,), values)])
        tails = xp.flip(xp.cumulative_sum(xp.flip(weights[order], axis=0), axis=0), axis=0)
        self.tails = xp.concat([tails, zeros(xp, (1,), tails)])
        self.slot = xp.zeros_like(order)
        self.slot[order] = arange(xp, order.shape[0], order)
        self.slot += segment
        # Of the negatives at each place: how many, and what they sum to.
        self.found = zeros(xp, (2, order.shape[0] + segments), weights)

    def search(self, segment: Array, d: Array, margin: float) -> Array:
        """For each negative the first place of its segment with ``(v − d) + margin > 0``."""
        xp, low, stride = (
            self.xp,
            self.xp.zeros_like(d, dtype=self.xp.int64),
            1 << max(self.longest.bit_length() - 1, 0),
        )
        first, count = self.first[segment], self.count[segment]
        while stride:
            place = low + stride
            inside = place <= count
            probe = self.values[xp.where(inside, first + place - 1, xp.zeros_like(place))]
            low = xp.where(inside & ((probe - d) + margin <= 0), place, low)
            stride //= 2
        return first + low

    def active(self, segment: Array, place: Array) -> Array:
        """Weight of the positives from the place on."""
        return self.tails[place] - self.tails[self.first[segment] + self.count[segment]]

    def add(self, segment: Array, place: Array, d: Array, exists: Array) -> None:
        """Count the negatives that exist at their places."""
        slots, values = place + segment, times(self.xp, exists, d)
        self.found += self.xp.stack([tally(self.xp, slots, what, self.found.shape[1]) for what in (exists, values)])

    def against(self) -> Array:
        """For each positive how many negatives are active against it, and what they sum to."""
        xp = self.xp
        so_far = xp.concat([zeros(xp, (2, 1), self.found), xp.cumulative_sum(self.found, axis=1)], axis=1)
        return so_far[:, self.slot + 1] - so_far[:, self.first[self.segment] + self.segment]


class ThreePasses(Passes):
    """One table, run in strips of ``height`` of the anchors ``own``; ``peers`` are ranks, which share positives."""

    tables: ClassVar[int] = 3
    pulls: ClassVar[int] = 2

    def run(self, upstream: Array | None, gradient: bool, into: tuple[Array, Array]) -> tuple[Array, Array]:
        """Losses and terms of the own anchors; their gradient is added to ``into``."""
        xp = self.xp
        # A batch beside a queue holds its labels inside.
        self.bound = getattr(self.bound, "inner", self.bound)
        if not isinstance(self.bound, BoundLabels):
            raise InputError(
                f"expected labels for {type(self.loss).__name__}, got a mask; it does not say which classes differ"
            )
        strips = self.strips()
        classes, triplets, quadruplets = self._counts()
        near, counted = self._positives(strips)
        counts = xp.astype((self.bound.positives * self.bound.negatives)[self.own], xp.float64)
        terms = counts / triplets
        each = xp.astype(terms > 0, xp.float64)
        if upstream is not None:
            each = per_term(xp, xp.astype(upstream, xp.float64), terms)[:, 0]
        ladders, keep, places = self._ladders(near, counted, each / quadruplets, classes)
        losses, pulls = self._negatives(strips, near, each / triplets, ladders, classes, gradient, into)
        against = self._against(ladders, keep, places)
        second = (near + self.loss.other_margin) * against[0] - against[1]
        losses = losses / triplets + xp.sum(times(xp, counted, second), axis=1) / quadruplets
        if gradient:
            pulls = pulls * (each / triplets)[:, None] + against[0] * (each / quadruplets)[:, None]
            self._pull(strips, times(xp, counted, pulls), into)
        return xp.astype(where(xp, terms > 0, losses, 0.0), self.a.rows.dtype), terms

    def _counts(self) -> tuple[tuple[Array, Array], Array, Array]:
        """The classes of anchors and references; how many triplets and quadruplets there are.

        A class is numbered by its first reference, so that names change no bit; anchors of a class without references
        are in a last class, which holds no positive.
        """
        xp, bound, other = self.xp, self.bound, self.bound.other
        size, first = other.shape[0], bound.first
        columns = bound.order[xp.searchsorted(other[bound.order], other, side="left")]
        rows = xp.full_like(first, size)
        if size:
            rows = xp.where(bound.same > 0, bound.order[xp.where(bound.same > 0, first, xp.zeros_like(first))], rows)
        ones = [xp.ones_like(codes, dtype=xp.float64) for codes in (rows, columns)]
        anchors, references = (tally(xp, c, one, size + 1) for c, one in zip((rows, columns), ones, strict=True))
        positives = tally(xp, rows, xp.astype(bound.positives, xp.float64), size + 1)
        if self.peers is not None and self.peers.places[0] is None:
            anchors, positives = self.peers.total(xp.stack([anchors, positives]))
        total, beside = xp.sum(anchors), float(size) - references
        negatives = anchors * beside
        avoiding = xp.sum(negatives) - negatives - references * (total - anchors)
        sums = (xp.sum(positives * beside), xp.sum(positives * avoiding))
        return (rows, columns), *(where(xp, one > 0, one, 1.0) for one in sums)

    def _positives(self, strips: list[tuple[int, int]]) -> tuple[Array, Array]:
        """Distances of the own anchors' listed positives, 0 on padding, and their weights; float64."""
        xp, shape = self.xp, (0, self.bound.longest)
        near, counted = [zeros(xp, shape, self.a.rows)], [zeros(xp, shape, self.a.rows)]
        for start, stop in strips:
            pair = self.bound.strip(start, stop)
            near.append(where(xp, pair.weight > 0, pair.take(self.table(start, stop).values), 0.0))
            counted.append(pair.weight)
        return xp.astype(xp.concat(near), xp.float64), xp.astype(xp.concat(counted), xp.float64)

    def _ladders(
        self, near: Array, counted: Array, share: Array, classes: tuple[Array, Array]
    ) -> tuple[tuple[Ladder, Ladder], Array, Any]:
        """All positives sorted together and class by class, where they lie in the list, and the own part of that."""
        xp, codes, own = self.xp, classes[0][self.own], slice(0, near.shape[0])
        if self.peers is not None:
            own, width = self.peers.at(0), int(self.peers.largest(xp.asarray([near.shape[1]], dtype=xp.float64))[0])
            padding = zeros(xp, (near.shape[0], width - near.shape[1]), near)
            lists = xp.concat([near, padding, counted, padding, share[:, None]], axis=1)
            lists, codes = self.peers.gathered(lists, 0), self.peers.gathered(codes, 0)
            near, counted, share = lists[:, :width], lists[:, width:-1], lists[:, -1]
        keep = xp.nonzero(xp.reshape(counted > 0, (-1,)))[0]
        share = xp.reshape(xp.broadcast_to(share[:, None], near.shape), (-1,))[keep]
        codes = xp.reshape(xp.broadcast_to(codes[:, None], near.shape), (-1,))[keep]
        values = xp.astype(xp.reshape(near, (-1,))[keep], self.a.rows.dtype)
        together = Ladder(xp, values, share, xp.zeros_like(codes), 1)
        return (together, Ladder(xp, values, share, codes, classes[1].shape[0] + 1)), keep, (own, near.shape)

    def _negatives(
        self,
        strips: list[tuple[int, int]],
        near: Array,
        each: Array,
        ladders: tuple[Ladder, Ladder],
        classes: tuple[Array, Array],
        gradient: bool,
        into: tuple[Array, Array],
    ) -> tuple[Array, Array]:
        """Losses of the triplets and the pull of each positive in them; negatives are counted and pushed."""
        xp, margin, dtype = self.xp, self.loss.other_margin, self.a.rows.dtype
        losses, pulls = [zeros(xp, (0,), near)], [near[:0]]
        for start, stop in strips:
            part, table = self.part(start, stop), self.table(start, stop)
            pair, values = self.bound.strip(start, stop), xp.asarray(table.values, copy=True)
            positive = where(xp, pair.weight > 0, pair.take(values), -INF)
            far = pair.negatives(values, INF)
            loss, push, pull = triplet_sums(
                xp, positive, pair.weight, xp.asarray(far, copy=True), pair, self.loss.margin
            )
            losses.append(xp.astype(loss, xp.float64))
            pulls.append(xp.astype(pull, xp.float64))
            exists, more = xp.astype(far != INF, xp.float64), 0.0
            whole = xp.zeros_like(classes[0][start:stop, None])
            for sign, ladder, segment in (
                (1.0, ladders[0], whole),
                (-1.0, ladders[1], classes[0][start:stop, None]),
                (-1.0, ladders[1], classes[1][None, :]),
            ):
                place = ladder.search(segment, far, margin)
                ladder.add(segment, place, far, exists)
                more = more + sign * ladder.active(segment, place)
            if gradient:
                weight = xp.astype(-(xp.astype(push, xp.float64) * each[part, None] + exists * more), dtype)
                self.pull(table, weight, start, stop, into)
        return xp.concat(losses), xp.concat(pulls)

    def _against(self, ladders: tuple[Ladder, Ladder], keep: Array, places: Any) -> Array:
        """How many negatives of two other classes are active against each own positive, and what they sum to."""
        xp, (own, shape) = self.xp, places
        if self.peers is not None:
            for ladder in ladders:
                ladder.found = self.peers.total(ladder.found)
        found = zeros(xp, (2, shape[0] * shape[1]), ladders[0].found)
        found[:, keep] = ladders[0].against() - ladders[1].against()
        return xp.reshape(found, (2, *shape))[:, own, : self.bound.longest]

    def _pull(self, strips: list[tuple[int, int]], pulls: Array, into: tuple[Array, Array]) -> None:
        xp = self.xp
        for start, stop in strips:
            table, part = self.table(start, stop), self.part(start, stop)
            weight = self.bound.strip(start, stop).add(
                xp.zeros_like(table.values), xp.astype(pulls[part], self.a.rows.dtype)
            )
            self.pull(table, weight, start, stop, into)
