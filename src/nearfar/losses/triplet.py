"""Triplet loss: every anchor nearer to its positives than to its negatives, by a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nearfar._arrays import (
    Array,
    Namespace,
    add_columns,
    relu,
    sigmoid,
    softplus,
    step,
    subtract,
    take_columns,
    times,
    where,
    zeros,
)
from nearfar._errors import InputError
from nearfar.engine import Engine, Given
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import expect_alike
from nearfar.measures import Distance, Euclidean
from nearfar.relations import Pair, Rows

INF = float("inf")
# Below this many positives a pass over the strip for each is cheaper than a binary search.
FEW = 16
# Elements of a part of a strip that the passes share: it and one temporary stay in the cache of a core.
CACHED = 1 << 17


@dataclass(frozen=True)
class TripletLoss(PairLoss):
    r"""Triplet loss over all, the hard or the semi-hard triplets of a batch.

    .. math::
        \ell_{apn} = \max(d_{ap} - d_{an} + m, 0) \quad\text{or, soft,}\quad \log(1 + e^{d_{ap} - d_{an} + m})

    The mean over all triplets that ``mining`` selects, those that rest at 0 included:

    - ``"all"``: every anchor, positive, negative; exact in one pass over the table, never a cube.
    - ``"hard"``: each anchor's farthest positive and nearest negative.
    - ``"semihard"``: each anchor and positive with the nearest negative farther than the positive, else the farthest
      negative.

    Args:
        margin: :math:`m`, in the unit of the distance.
        mining: ``"all"``, ``"hard"`` or ``"semihard"``.
        soft: Softplus instead of the hinge; Hermans' soft margin is ``TripletLoss(margin=0, soft=True)``.
        active_only: Mean over the triplets above 0 (other libraries' default; it rises while training succeeds).
        measure: A distance. FaceNet's loss is ``SquaredEuclidean()`` on unit vectors.

    Raises:
        InputError: An unknown mining, a margin that is not a number, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> anchor, positive, negative = np.array([[0.0, 0.0]]), np.array([[0.3, 0.4]]), np.array([[0.0, 0.6]])
        >>> float(nf.TripletLoss(margin=0.2).triplets(anchor, positive, negative).round(4))  # 0.5 - 0.6 + 0.2
        0.1

    Memory: a strip of the table and each anchor's positives.

    References:
        Schroff et al., "FaceNet", CVPR 2015, eq. (1)–(4) (squared distances, semi-hard); Hermans et al., "In Defense
        of the Triplet Loss", 2017, eq. (5), (6) (hard, all; distances not squared, as here).
    """

    margin: float = 0.2
    mining: str = "all"
    soft: bool = False
    active_only: bool = False
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Mining and margin."""
        if self.mining not in ("all", "hard", "semihard"):
            raise InputError(f"expected mining to be 'all', 'hard' or 'semihard', got {self.mining!r}; choose one")
        if not abs(self.margin) < INF:
            raise InputError(f"expected a finite margin, got {self.margin}; give it in the unit of the distance")
        if self.soft and self.active_only:
            raise InputError("expected active_only with the hinge, got soft=True; every soft triplet is active")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's triplets."""
        if self.mining == "hard":
            return self._hard(xp, s, pair)
        if self.mining == "semihard":
            return self._semihard(xp, s, pair)
        if self.soft or pair.index.shape[1] <= FEW:
            return self._all_by_positive(xp, s, pair)
        return _all_by_search(xp, s, pair, self.margin)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each selected triplet is a term."""
        positives, negatives = pair.positive_count, pair.negative_count
        if self.active_only:
            counted = (pair.weight > 0) & (negatives > 0)
            return xp.sum(where(xp, counted, pair.take(weight), 0.0), axis=1)
        if self.mining == "all":
            return positives * negatives
        exists = xp.astype(negatives > 0, weight.dtype)
        return exists * (positives if self.mining == "semihard" else xp.astype(positives > 0, weight.dtype))

    def triplets(
        self, anchor: Array, positive: Array, negative: Array, *, engine: Engine = "auto", group: Any = None
    ) -> Array:
        """The loss of given triplets.

        Args:
            anchor: Shape (triplets, features).
            positive: Shape (triplets, features).
            negative: Shape (triplets, features).
            engine: Accepted for uniformity; given triplets make no table.
            group: Ranks over whose triplets the mean is taken.

        Returns:
            The mean over triplets.
        """

        def given() -> Given:
            xp = expect_alike(anchor=anchor, positive=positive, negative=negative)
            others = xp.stack([positive, negative], axis=1)
            first = np.tile(np.asarray([[1.0, 0.0]]), (anchor.shape[0], 1))
            return Given(anchor, others, Rows(first, 1 - first))

        return self._evaluate(given, engine, group)

    def _one(self, xp: Namespace, difference: Array) -> tuple[Array, Array]:
        """Loss of triplets and its derivative by ``d_ap − d_an``; overwrites them."""
        difference += self.margin
        if self.soft:
            return softplus(xp, difference), sigmoid(xp, difference)
        value = relu(xp, difference)
        return value, step(xp, xp.asarray(value, copy=True))

    def _hard(self, xp: Namespace, d: Array, pair: Pair) -> tuple[Array, Array]:
        if pair.index.shape[1] == 0:
            return xp.sum(pair.weight, axis=1), xp.zeros_like(d)
        inside = where(xp, pair.weight > 0, pair.take(d), -INF)
        farthest = take_columns(xp, pair.index, xp.argmax(inside, axis=1)[:, None])
        outside = pair.negatives(d, INF)
        nearest = xp.argmin(outside, axis=1)[:, None]
        difference = xp.max(inside, axis=1, keepdims=True) - take_columns(xp, outside, nearest)
        loss, slope = self._one(xp, difference)
        weight = add_columns(xp.zeros_like(d), farthest, slope)
        return loss, add_columns(weight, nearest, -slope)

    def _semihard(self, xp: Namespace, d: Array, pair: Pair) -> tuple[Array, Array]:
        weight, loss = xp.zeros_like(d), zeros(xp, (d.shape[0], 1), d)
        positives = pair.take(d)
        if pair.index.shape[1] == 0:
            return loss, weight
        farthest = xp.argmax(pair.negatives(d, -INF), axis=1)[:, None]
        last = take_columns(xp, d, farthest)
        outside = pair.negatives(d, INF)
        for r in range(pair.index.shape[1]):
            column, counted, positive = pair.index[:, r : r + 1], pair.weight[:, r : r + 1], positives[:, r : r + 1]
            beyond = where(xp, ~(outside <= positive), outside, INF)
            nearest = xp.argmin(beyond, axis=1)[:, None]
            found = take_columns(xp, beyond, nearest)
            fallback = found == INF
            value, slope = self._one(xp, positive - xp.where(fallback, last, found))
            loss += times(xp, counted, value)
            slope = times(xp, counted, slope)
            weight = add_columns(weight, column, slope)
            weight = add_columns(weight, xp.where(fallback, farthest, nearest), -slope)
        return loss, weight

    def _all_by_positive(self, xp: Namespace, d: Array, pair: Pair) -> tuple[Array, Array]:
        """One pass over the strip for each positive, part by part so that a part stays in the cache."""
        loss, push = zeros(xp, (d.shape[0],), d), xp.zeros_like(d)
        # Padding stands below every negative: it adds 0.
        positives, pull = where(xp, pair.weight > 0, pair.take(d), -INF), xp.zeros_like(pair.weight)
        outside = pair.negatives(d, INF)
        wide = max(CACHED // max(d.shape[0], 1), 64) if pair.uniform else max(d.shape[1], 1)
        for start in range(0, d.shape[1], wide):
            part = slice(start, start + wide)
            far, here, difference = outside[:, part], push[:, part], None
            for r in range(pair.index.shape[1]):
                difference = subtract(xp, positives[:, r : r + 1], far, difference)
                difference += self.margin
                slope = sigmoid(xp, difference) if self.soft else None
                difference = value = softplus(xp, difference) if self.soft else relu(xp, difference)
                costs = xp.sum(pair.weigh(value), axis=1)
                slope = pair.weigh(step(xp, value) if slope is None else slope)
                pull[:, r] += xp.sum(slope, axis=1)
                if not pair.uniform:
                    costs, slope = times(xp, pair.weight[:, r], costs), pair.weight[:, r : r + 1] * slope
                loss += costs
                here += slope
        if not pair.uniform:
            pull = times(xp, pair.weight, pull)
        push *= -1
        return loss, pair.add(push, pull)


def _all_by_search(xp: Namespace, d: Array, pair: Pair, margin: float) -> tuple[Array, Array]:
    """All hinge triplets by sorted positives and counted negatives.

    With an anchor's positives sorted, ``v_1 ≤ … ≤ v_P``, those active against a negative are the last ones: their
    number and sum come from the place k of the first. The predicate is the hinge's own, ``(v − d) + m > 0``, which is
    monotone in v, so that the set of triplets is the one of the triple loop, bit for bit.
    """
    v = where(xp, pair.weight > 0, pair.take(d), -INF)
    order = xp.argsort(v, axis=1)
    v, counted = take_columns(xp, v, order), take_columns(xp, pair.weight, order)
    d = pair.negatives(d, INF)
    first = _first_active(xp, v, d, margin)
    tail_weight, tail_sum = _tails(xp, counted), _tails(xp, times(xp, counted, v))
    active = take_columns(xp, tail_weight, first)
    value = take_columns(xp, tail_sum, first) - times(xp, active, xp.astype(d, xp.float64) - margin)
    loss = xp.sum(pair.weigh(xp.astype(value, d.dtype)), axis=1)
    push = pair.weigh(xp.astype(active, d.dtype))
    # A positive is active against the negatives whose first active place is not behind it.
    ones = pair.weigh(xp.astype(d != INF, d.dtype))
    found = add_columns(zeros(xp, (d.shape[0], v.shape[1] + 1), d), first, ones)
    pull = times(xp, counted, xp.cumulative_sum(found, axis=1)[:, :-1])
    return loss, add_columns(-push, take_columns(xp, pair.index, order), pull)


def _first_active(xp: Namespace, v: Array, d: Array, margin: float) -> Array:
    """For each reference the first place k with ``(v_k − d) + margin > 0``, the row's length if there is none."""
    count = v.shape[1]
    padded = xp.concat([v, xp.full_like(v[:, :1], INF)], axis=1)
    low = xp.zeros_like(d, dtype=xp.int64)
    step = 1 << max(count.bit_length() - 1, 0)
    while step:
        place = low + step
        inside = place <= count
        probe = take_columns(xp, padded, xp.where(inside, place - 1, xp.full_like(place, count)))
        low = xp.where(inside & ((probe - d) + margin <= 0), place, low)
        step //= 2
    return low


def _tails(xp: Namespace, values: Array) -> Array:
    """Sums of the entries from each place on, in float64, and 0 behind the last."""
    wide = xp.astype(values, xp.float64)
    sums = xp.flip(xp.cumulative_sum(xp.flip(wide, axis=1), axis=1), axis=1)
    return xp.concat([sums, xp.zeros_like(sums[:, :1])], axis=1)
