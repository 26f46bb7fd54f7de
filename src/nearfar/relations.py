"""Who belongs together: which pairs of the table are positive, negative or ignored, and how much they weigh.

A relation is given by the caller (:class:`Labels`, :class:`Mask`, :class:`Aligned`) and bound to a table once;
the bound relation cuts a :class:`Pair` for each strip of anchors. Weights are multiplicities: a pair of weight 2
counts as the same pair listed twice, a pair of weight 0 does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from nearfar._arrays import Array, Namespace, arange, as_like, integers, where, zeros
from nearfar._errors import InputError, ShapeError


@dataclass
class Pair:
    """The relation on one strip: anchors × references.

    Attributes:
        xp: The array namespace.
        positive: Weight of each pair as a positive, 0 where it is none; shape (anchors, references).
        negative: Weight of each pair as a negative, 0 where it is none; shape (anchors, references).
        positive_total: Weight of all positives of the whole table, a scalar.
        negative_total: Weight of all negatives of the whole table, a scalar.
        uniform: Whether every weight is 0 or 1.
    """

    xp: Namespace
    positive: Array
    negative: Array
    positive_total: Array
    negative_total: Array
    uniform: bool = True

    @cached_property
    def positive_count(self) -> Array:
        """Weight of each anchor's positives, a column."""
        return self.xp.sum(self.positive, axis=1, keepdims=True)

    @cached_property
    def negative_count(self) -> Array:
        """Weight of each anchor's negatives, a column."""
        return self.xp.sum(self.negative, axis=1, keepdims=True)

    @cached_property
    def share(self) -> Array:
        """Weight of each positive over the weight of its anchor's positives; rows sum to 1, or to 0 without one."""
        return self.positive / where(self.xp, self.positive_count > 0, self.positive_count, 1.0)

    def among(self, weight: Array, z: Array) -> Array:
        """Logits of the pairs that ``weight`` admits: ``z + log(weight)``, −inf elsewhere."""
        xp = self.xp
        if not self.uniform:
            z = z + xp.log(where(xp, weight > 0, weight, 1.0))
        return where(xp, weight > 0, z, -float("inf"))

    def among_valid(self, z: Array) -> Array:
        """Logits of all positives and negatives, −inf for pairs that are ignored."""
        return self.among(self.positive + self.negative, z)

    @cached_property
    def positive_list(self) -> tuple[Array, Array]:
        """Column indices of each anchor's positives, padded, and their weights (0 on padding)."""
        xp = self.xp
        longest = int(xp.max(xp.sum(xp.astype(self.positive > 0, xp.int64), axis=1))) if self.positive.shape[0] else 0
        order = xp.argsort(xp.astype(self.positive > 0, xp.int8), axis=1, descending=True, stable=True)
        index = order[:, :longest]
        return index, xp.take_along_axis(self.positive, index, axis=1)


class BoundRelation(Protocol):
    """A relation tied to one table of anchors × references."""

    def strip(self, start: int, stop: int) -> Pair:
        """The relation of anchors ``start`` … ``stop`` − 1 to all references."""
        ...


class Relation(Protocol):
    """What the caller says about the pairs."""

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundRelation:
        """Check shapes against the table and prepare; ``references`` is None for a batch against itself."""
        ...

    def kept(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Relation, Array | None, Array | None]:
        """The relation without ignored items, and the indices of the anchors and references that stay (None: all)."""
        ...


def _all_kept(relation: Any) -> tuple[Any, None, None]:
    return relation, None, None


@dataclass(frozen=True, eq=False)
class Labels:
    """Same label: positive. Another label: negative. An item is never paired with itself.

    Args:
        labels: One integer, boolean or string an anchor; shape (anchors,).
        reference_labels: The same for separate references; shape (references,).
        ignore: A label value whose items take part in nothing ("unknown").
    """

    labels: Any
    reference_labels: Any = None
    ignore: int | str | None = None

    def _codes(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Array, Array, int | None]:
        """Integer labels of both sides and the ignored one; strings of both sides share one code book."""
        if (references is None) != (self.reference_labels is None):
            missing = "references" if references is None else "reference_labels"
            raise InputError(f"expected references and reference_labels together, got no {missing}; pass both")
        book: dict[Any, int] = {}
        own = integers(xp, self.labels, "labels", anchors, book)
        _expect_count("labels", own, anchors)
        other = own
        if references is not None:
            other = integers(xp, self.reference_labels, "reference_labels", anchors, book)
            _expect_count("reference_labels", other, references)
        ignore = book.get(self.ignore) if book or isinstance(self.ignore, str) else self.ignore
        return own, other, ignore  # type: ignore[return-value]

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Labels, Array | None, Array | None]:
        """Leave out the items of the ignored label."""
        own, other, ignore = self._codes(xp, anchors, references)
        if ignore is None:
            return Labels(own, None if references is None else other), None, None
        rows = xp.nonzero(own != ignore)[0]
        if references is None:
            return Labels(own[rows]), rows, None
        columns = xp.nonzero(other != ignore)[0]
        return Labels(own[rows], other[columns]), rows, columns

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundLabels:
        """Tie the labels to a table."""
        own, other, _ = self._codes(xp, anchors, references)
        return BoundLabels(xp, own, other, references is None, anchors)


def _expect_count(name: str, codes: Array, items: Array) -> None:
    if codes.shape[0] != items.shape[0]:
        raise ShapeError(
            f"expected {name} of shape ({items.shape[0]},), one for each item, got {tuple(codes.shape)}; "
            "check that both come from the same batch"
        )


class BoundLabels:
    """Labels tied to a table; counts come from sorted labels, never from the table."""

    def __init__(self, xp: Namespace, own: Array, other: Array, is_self: bool, like: Array) -> None:
        self.xp, self.own, self.other, self.is_self, self.like = xp, own, other, is_self, like
        ordered = xp.sort(other)
        first = xp.searchsorted(ordered, own, side="left")
        same = xp.searchsorted(ordered, own, side="right") - first
        positives = same - 1 if is_self else same
        self.positive_counts = xp.astype(positives, like.dtype)
        self.negative_counts = xp.astype(other.shape[0] - same, like.dtype)
        self.positive_total = xp.sum(xp.astype(positives, xp.float64))
        self.negative_total = xp.sum(xp.astype(other.shape[0] - same, xp.float64))
        self._order = xp.argsort(other, stable=True)
        self._first, self._same = first, same

    def strip(self, start: int, stop: int) -> Pair:
        """Compare labels on the strip."""
        pair = _LabelPair(self.xp, None, None, self.positive_total, self.negative_total)
        pair.bound, pair.rows = self, slice(start, stop)
        return pair


class _LabelPair(Pair):
    """A strip of a label relation, each mask made when first asked for."""

    bound: BoundLabels
    rows: slice

    def __init__(self, xp: Namespace, positive: Any, negative: Any, positive_total: Array, negative_total: Array) -> None:
        self.xp, self.positive_total, self.negative_total, self.uniform = xp, positive_total, negative_total, True

    @cached_property
    def _same(self) -> Array:
        return self.bound.own[self.rows, None] == self.bound.other[None, :]

    @cached_property
    def positive(self) -> Array:  # type: ignore[override]
        positive = self.xp.astype(self._same, self.bound.like.dtype)
        return self._without_self(positive, 0.0)

    @cached_property
    def negative(self) -> Array:  # type: ignore[override]
        return self.xp.astype(~self._same, self.bound.like.dtype)

    @cached_property
    def positive_count(self) -> Array:
        return self.bound.positive_counts[self.rows, None]

    @cached_property
    def negative_count(self) -> Array:
        return self.bound.negative_counts[self.rows, None]

    def among_valid(self, z: Array) -> Array:
        return self._without_self(z, -float("inf"))

    def _without_self(self, z: Array, fill: float) -> Array:
        """Every pair but an anchor with itself; ``z`` belongs to the strip and is changed in place."""
        if self.bound.is_self:
            rows = arange(self.xp, z.shape[0], z)
            z[rows, rows + self.rows.start] = fill
        return z

    @cached_property
    def positive_list(self) -> tuple[Array, Array]:
        xp, bound = self.xp, self.bound
        first, same = bound._first[self.rows, None], bound._same[self.rows, None]
        longest = int(xp.max(same)) if same.shape[0] else 0
        place = arange(xp, longest, bound.own)[None, :]
        inside = place < same
        index = bound._order[xp.where(inside, first + place, xp.zeros_like(first))]
        if bound.is_self:
            anchor = arange(xp, bound.own.shape[0], bound.own)[self.rows, None]
            inside = inside & (index != anchor)
        return index, xp.astype(inside, bound.like.dtype)


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
        return _all_kept(self)

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundMask:
        """Tie the mask to a table."""
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
            keep = 1 - xp.eye(shape[0], dtype=anchors.dtype, device=positive.device)
            positive, negative = positive * keep, negative * keep
        return BoundMask(xp, positive, negative)


class BoundMask:
    """Weights of all pairs, held as given."""

    def __init__(self, xp: Namespace, positive: Array, negative: Array) -> None:
        self.xp, self.positive, self.negative = xp, positive, negative
        self.totals = xp.sum(positive, dtype=xp.float64), xp.sum(negative, dtype=xp.float64)

    def strip(self, start: int, stop: int) -> Pair:
        """Cut the rows of the strip."""
        rows = slice(start, stop)
        return Pair(self.xp, self.positive[rows], self.negative[rows], *self.totals, uniform=False)


@dataclass(frozen=True)
class Aligned:
    """Row i of the anchors matches row i of the references, and nothing else."""

    def kept(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Aligned, Array | None, Array | None]:
        """All items stay."""
        return _all_kept(self)

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundLabels:
        """Tie to a table whose two sides have as many rows."""
        if references is None or references.shape[0] != anchors.shape[0]:
            got = "no references" if references is None else f"{anchors.shape[0]} and {references.shape[0]}"
            raise ShapeError(f"expected as many references as anchors, got {got}; align the two batches row by row")
        index = arange(xp, anchors.shape[0], anchors)
        return BoundLabels(xp, index, index, False, anchors)


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
        positive = as_like(xp, self.positive, table, table.dtype)
        negative = as_like(xp, self.negative, table, table.dtype)
        if tuple(positive.shape) != tuple(table.shape) or tuple(negative.shape) != tuple(table.shape):
            raise ShapeError(
                f"expected one answer for each of {tuple(table.shape)} pairs, got {tuple(positive.shape)}; "
                "give one 0/1 label a row"
            )
        total = zeros(xp, (), table, xp.float64)
        return Pair(xp, positive, negative, total + xp.sum(positive), total + xp.sum(negative), uniform=False)
