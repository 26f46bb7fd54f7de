"""What losses on log-sum-exps share: that of an anchor's listed positives, and who takes part."""

from __future__ import annotations

from typing import Any

from nearfar._arrays import Array, Namespace, exp_sum, times, where
from nearfar.relations import Pair


def positive_pool(xp: Namespace, z: Array, pair: Pair) -> tuple[Array, Array]:
    """Log-sum-exp over an anchor's listed positives (a column, −inf without one) and the share of each in it."""
    z = where(xp, pair.weight > 0, z, -float("inf"))
    if not pair.uniform:
        z = z + xp.log(where(xp, pair.weight > 0, pair.weight, 1.0))
    pool, share, total = exp_sum(xp, z)
    share /= where(xp, total > 0, total, 1.0)
    return pool, share


def has_both(xp: Namespace, pair: Pair, weight: Array) -> Any:
    """1 where the anchor has a positive and a negative."""
    return xp.astype((pair.positive_count > 0) & (pair.negative_count > 0), weight.dtype)


def has_any(xp: Namespace, pair: Pair, weight: Array) -> Any:
    """1 where the anchor has a positive or a negative."""
    return xp.astype((pair.positive_count > 0) | (pair.negative_count > 0), weight.dtype)


def share_of(pair: Pair, by_pair: bool) -> Array:
    """What each listed positive counts for: all of an anchor's together 1, or each its weight."""
    return pair.weight if by_pair else pair.share


def positives_or_one(xp: Namespace, pair: Pair, weight: Array, by_pair: bool) -> Any:
    """Of an anchor that has a positive and a negative: its positives where each is a term, else 1."""
    both = has_both(xp, pair, weight)
    return times(xp, both, pair.positive_count) if by_pair else both
