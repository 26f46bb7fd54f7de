"""Relations given pair by pair: a mask over the table, or references of each anchor's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nearfar._arrays import (
    Array,
    Namespace,
    arange,
    as_like,
    take_columns,
    times,
    where,
)
from nearfar._errors import ShapeError
from nearfar.relations.labels import BoundLabels
from nearfar.relations.pair import Pair


class MaskPair(Pair):
    """A strip of weights given one by one; ``totals`` gives the weights of the whole table to the losses that ask."""

    def __init__(
        self, xp: Namespace, positive: Array, negative: Array, totals: Callable[[], tuple[Array, Array]]
    ) -> None:
        self.xp, self._positive, self._negative, self._totals = xp, positive, negative, totals
        self.positive_count = xp.sum(positive, axis=1, keepdims=True)
        self.negative_count = xp.sum(negative, axis=1, keepdims=True)
        order = xp.argsort(xp.astype(positive != 0, xp.int8), axis=1, descending=True, stable=True)
        lengths = xp.sum(xp.astype(positive != 0, xp.int64), axis=1)
        self.index = order[:, : int(xp.max(lengths)) if positive.shape[0] else 0]
        self.weight = take_columns(xp, positive, self.index)

    @cached_property
    def positive_total(self) -> Array:
        """Of the whole table."""
        return self._totals()[0]

    @cached_property
    def negative_total(self) -> Array:
        """Of the whole table."""
        return self._totals()[1]

    def negatives(self, table: Array, otherwise: float) -> Array:
        """Another number where there is no negative."""
        return where(self.xp, self._negative != 0, table, otherwise)

    def weigh(self, table: Array) -> Array:
        """Times the weights."""
        return times(self.xp, self._negative, table)

    def negative_logits(self, logits: Array) -> Array:
        """Plus the log of the weights; −inf where there is no negative."""
        return self._weighed(logits, self._negative)

    def valid_logits(self, logits: Array) -> Array:
        """Plus the log of the weights; −inf where there is no pair."""
        return self._weighed(logits, self._positive + self._negative)

    def _weighed(self, logits: Array, weight: Array) -> Array:
        xp = self.xp
        return where(xp, weight != 0, logits + xp.log(where(xp, weight != 0, weight, 1.0)), -float("inf"))


@dataclass(frozen=True, eq=False)
class Mask:
    """Pairs marked one by one, with weights.

    Args:
        positive: Weight (or truth) of each pair as a positive; shape (anchors, references).
        negative: The same for negatives. Left out: every pair that is not positive, and not an item with itself.
    """

    positive: Any
    negative: Any = None

    def kept(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Mask, Array | None, Array | None]:
        """All items stay."""
        return self, None, None

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundMask:
        """Tie the mask to a table."""
        return BoundMask(xp, *self.weights(xp, anchors, references))

    def weights(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Array, Array]:
        """Weights of all pairs as positives and as negatives; an item with itself is neither."""
        is_self = references is None
        shape = (anchors.shape[0], (anchors if references is None else references).shape[0])
        positive = as_like(xp, self.positive, anchors, anchors.dtype)
        if self.negative is None:
            negative = xp.astype(positive == 0, anchors.dtype)
        else:
            negative = as_like(xp, self.negative, anchors, anchors.dtype)
        for name, mask in (("positive", positive), ("negative", negative)):
            if tuple(mask.shape) != shape:
                raise ShapeError(
                    f"expected {name} of shape {shape}, anchors × references, got {tuple(mask.shape)}; "
                    "mark every pair of the table"
                )
        if is_self:
            keep = 1 - xp.eye(shape[0], dtype=anchors.dtype, device=getattr(positive, "device", None))
            positive, negative = positive * keep, negative * keep
        return positive, negative


class BoundMask:
    """Weights of all pairs, held as given."""

    def __init__(self, xp: Namespace, positive: Array, negative: Array) -> None:
        self.xp, self.positive, self.negative = xp, positive, negative
        self.totals = _totals(xp, positive, negative)

    def strip(self, start: int, stop: int) -> Pair:
        """Cut the rows of the strip."""
        rows = slice(start, stop)
        return MaskPair(self.xp, self.positive[rows], self.negative[rows], lambda: self.totals)


@dataclass(frozen=True, eq=False)
class Rows:
    """Each anchor has references of its own: row i of the anchors against ``references[i, k]``.

    Args:
        positive: Weight of pair (i, k) as a positive; shape (anchors, k).
        negative: Weight of pair (i, k) as a negative; shape (anchors, k).
    """

    positive: Any
    negative: Any

    def strip_of(self, xp: Namespace, table: Array) -> Pair:
        """The relation on the whole table of anchors × k."""
        positive, negative = self.weights(xp, table)
        totals = _totals(xp, positive, negative)
        return MaskPair(xp, positive, negative, lambda: totals)

    def weights(self, xp: Namespace, table: Array) -> tuple[Array, Array]:
        """Weights of all pairs as positives and as negatives."""
        positive = as_like(xp, self.positive, table, table.dtype)
        negative = as_like(xp, self.negative, table, table.dtype)
        if tuple(positive.shape) != tuple(table.shape) or tuple(negative.shape) != tuple(table.shape):
            raise ShapeError(
                f"expected one answer for each of {tuple(table.shape)} pairs, got {tuple(positive.shape)}; "
                "give one 0/1 label a row"
            )
        return positive, negative


class Classes(Rows):
    """Column c of the table is class c, and each anchor has one: a list of one positive, no mask.

    Args:
        own: Column of each anchor, int64; one that is no column has no positive.
    """

    own: Array

    def __init__(self, own: Array) -> None:
        object.__setattr__(self, "own", own)

    def strip_of(self, xp: Namespace, table: Array) -> Pair:
        """As labels of both sides."""
        own = as_like(xp, self.own, table, xp.int64)
        return BoundLabels(xp, own, arange(xp, table.shape[1], table), False, table).strip(0, table.shape[0])

    def weights(self, xp: Namespace, table: Array) -> tuple[Array, Array]:
        """Where weights are asked for one by one."""
        own = as_like(xp, self.own, table, xp.int64)
        right = own[:, None] == arange(xp, table.shape[1], table)[None, :]
        return xp.astype(right, table.dtype), xp.astype(~right, table.dtype)


def _totals(xp: Namespace, positive: Array, negative: Array) -> tuple[Array, Array]:
    return xp.sum(positive, dtype=xp.float64), xp.sum(negative, dtype=xp.float64)
