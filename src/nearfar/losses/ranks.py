"""What losses on smooth ranks share: for each positive, how many negatives and positives stand above it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nearfar._arrays import Array, Namespace, arange, fold, sigmoid, times, where, zeros
from nearfar.relations import Pair

Cost = Callable[[Array, Array], tuple[Array, Array, Array]]
"""``cost(wrong, place)``: a positive's loss and its derivatives by both, columns.

``wrong`` is the smooth number of negatives above the positive, ``place`` its smooth place among the positives: 1 for
the first.
"""


def by_rank(xp: Namespace, s: Array, pair: Pair, temperature: float, cost: Cost) -> tuple[Array, Array]:
    """The strip of a loss that is a mean over each anchor's positives; one pass over the strip for each of them."""
    s *= 1 / temperature
    s = not_infinite(s)
    near = where(xp, pair.weight > 0, pair.take(s), 0.0)
    far = pair.negatives(s, -float("inf"))
    columns = arange(xp, pair.index.shape[1], s)[None, :]

    def one(r: Any, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        loss, push, pull = sums
        share, p = pair.share[:, r][:, None], near[:, r][:, None]
        above, rise = _step(xp, far - p)
        above, rise = pair.weigh(above), pair.weigh(rise)
        beside, slope = _step(xp, near - p)
        # σ is ½ where a positive meets itself, and no other stands above the first: ½ + Σ is its place.
        place = 0.5 + xp.sum(times(xp, pair.weight, beside), axis=1, keepdims=True)
        value, by_wrong, by_place = cost(xp.sum(above, axis=1, keepdims=True), place)
        slope = times(xp, pair.weight, slope) * (share * by_place)
        rise *= share * by_wrong
        push += rise
        own = xp.sum(slope, axis=1, keepdims=True) + xp.sum(rise, axis=1, keepdims=True)
        return loss + share * value, push, pull + slope - own * xp.astype(columns == r, own.dtype)

    sums = zeros(xp, (s.shape[0], 1), s), xp.zeros_like(s), xp.zeros_like(near)
    loss, push, pull = fold(xp, pair.index.shape[1], one, sums)
    return loss, pair.add(push, pull) / temperature


def _step(xp: Namespace, z: Array) -> tuple[Array, Array]:
    """Sigmoid and its derivative."""
    high = sigmoid(xp, z)
    slope = 1 - high
    slope *= high
    return high, slope


def not_infinite(s: Array) -> Array:
    """The measure, with NaN for ∞: a bounded loss would swallow what must reach the value; overwrites ``s``."""
    s += 0 * s
    return s
