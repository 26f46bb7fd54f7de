"""All hinges of an anchor's positives against its negatives, summed without a cube of triplets."""

from __future__ import annotations

from typing import Any

from nearfar._arrays import (
    Array,
    Namespace,
    add_column,
    add_columns,
    fold,
    put_block,
    relu,
    sigmoid,
    softplus,
    step,
    subtract,
    take_columns,
    times,
    zeros,
)
from nearfar.relations import Pair

INF = float("inf")
# Below this many positives a pass over the strip for each is cheaper than a binary search.
FEW = 16
# Elements of a part of a strip that the passes share: it and one temporary stay in the cache of a core.
CACHED = 1 << 17


def triplet_sums(
    xp: Namespace, near: Array, counted: Array, far: Array, pair: Pair, margin: float, soft: bool = False
) -> tuple[Array, Array, Array]:
    """Sums over all triplets of ``max(near − far + margin, 0)``, or of its softplus.

    Args:
        xp: The array namespace.
        near: Distances of the listed positives, −∞ where one does not count; shape (anchors, positives).
        counted: Their weights, 0 where one does not count; 1 elsewhere if the relation is uniform.
        far: Distances of the negatives, ∞ elsewhere; shape (anchors, references); may be overwritten.
        pair: The relation, which weighs the negatives.
        margin: In the unit of the distance.
        soft: Softplus instead of the hinge.

    Returns:
        Loss of each anchor, push of each negative (minus its derivative) and pull of each positive (its derivative).
    """
    if soft or near.shape[1] <= FEW:
        return _by_positive(xp, near, counted, far, pair, margin, soft)
    return _by_search(xp, near, counted, far, pair, margin)


def _by_positive(
    xp: Namespace, near: Array, counted: Array, far: Array, pair: Pair, margin: float, soft: bool
) -> tuple[Array, Array, Array]:
    """One pass over the strip for each positive, part by part so that a part stays in the cache."""
    loss, pull = zeros(xp, (far.shape[0],), far), xp.zeros_like(counted)
    wide = max(CACHED // max(far.shape[0], 1), 64) if pair.uniform else max(far.shape[1], 1)
    for start in range(0, far.shape[1], wide):
        part = far[:, start : start + wide]

        def one(
            r: Any, sums: tuple[Array, Array, Array, Array], part: Array = part
        ) -> tuple[Array, Array, Array, Array]:
            loss, here, pull, difference = sums
            difference = subtract(xp, near[:, r, None], part, difference)
            difference += margin
            slope = sigmoid(xp, difference) if soft else None
            difference = value = softplus(xp, difference) if soft else relu(xp, difference)
            costs = xp.sum(pair.weigh(value), axis=1)
            slope = pair.weigh(step(xp, value) if slope is None else slope)
            pull = add_column(pull, r, xp.sum(slope, axis=1))
            if not pair.uniform:
                costs, slope = times(xp, counted[:, r], costs), counted[:, r, None] * slope
            loss += costs
            here += slope
            return loss, here, pull, difference

        loss, here, pull, _ = fold(xp, near.shape[1], one, (loss, xp.zeros_like(part), pull, xp.zeros_like(part)))
        # Each part of the strip is read once, so that its pushes may take its place.
        far = put_block(far, start, here)
    return loss, far, pull if pair.uniform else times(xp, counted, pull)


def _by_search(
    xp: Namespace, near: Array, counted: Array, far: Array, pair: Pair, margin: float
) -> tuple[Array, Array, Array]:
    """All hinge triplets by sorted positives and counted negatives.

    With an anchor's positives sorted, ``v_1 ≤ … ≤ v_P``, those active against a negative are the last ones: their
    number and sum come from the place k of the first. The predicate is the hinge's own, ``(v − d) + m > 0``, which is
    monotone in v, so that the set of triplets is the one of the triple loop, bit for bit.
    """
    order = xp.argsort(near, axis=1)
    v, weight = take_columns(xp, near, order), take_columns(xp, counted, order)
    first = _first_active(xp, v, far, margin)
    tail_weight, tail_sum = _tails(xp, weight), _tails(xp, times(xp, weight, v))
    active = take_columns(xp, tail_weight, first)
    value = take_columns(xp, tail_sum, first) - times(xp, active, xp.astype(far, xp.float64) - margin)
    loss = xp.sum(pair.weigh(xp.astype(value, far.dtype)), axis=1)
    push = pair.weigh(xp.astype(active, far.dtype))
    # A positive is active against the negatives whose first active place is not behind it.
    ones = pair.weigh(xp.astype(far != INF, far.dtype))
    found = add_columns(zeros(xp, (far.shape[0], v.shape[1] + 1), far), first, ones)
    pull = times(xp, weight, xp.cumulative_sum(found, axis=1)[:, :-1])
    return loss, push, add_columns(xp.zeros_like(pull), order, pull)


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
