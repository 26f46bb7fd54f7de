"""Who belongs together: which pairs of the table are positive, negative or ignored, and how much they weigh.

A relation is given by the caller (:class:`Labels`, :class:`Mask`, :class:`Aligned`) and bound to a table once;
the bound relation cuts a :class:`Pair` for each strip of anchors. Weights are multiplicities: a pair of weight 2
counts as the same pair listed twice, a pair of weight 0 does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from nearfar._arrays import (
    Array,
    Namespace,
    add_columns,
    arange,
    as_like,
    integers,
    put_columns,
    take_columns,
    times,
    where,
)
from nearfar._errors import InputError, ShapeError


class Pair:
    """The relation on one strip: anchors × references.

    Positives are few, so they are a list for each anchor: ``take`` reads the table there, ``add`` writes there.
    Negatives are nearly everything, so they are the rest of the table: ``negatives`` and ``valid`` fill the others.

    Attributes:
        xp: The array namespace.
        index: Columns of each anchor's positives, padded; shape (anchors, longest list).
        weight: Their weights, 0 on padding; shape (anchors, longest list).
        positive_count: Weight of each anchor's positives, a column.
        negative_count: Weight of each anchor's negatives, a column.
        positive_total: Weight of all positives of the whole table, a scalar.
        negative_total: Weight of all negatives of the whole table, a scalar.
    """

    xp: Namespace
    index: Array
    weight: Array
    positive_count: Array
    negative_count: Array
    positive_total: Array
    negative_total: Array

    @cached_property
    def share(self) -> Array:
        """Weight of each listed positive over that of all its anchor's; sums to 1, or to 0 without a positive."""
        return self.weight / where(self.xp, self.positive_count > 0, self.positive_count, 1.0)

    def take(self, table: Array) -> Array:
        """The table at the listed positives."""
        return take_columns(self.xp, table, self.index)

    def add(self, table: Array, values: Array) -> Array:
        """The table with ``values`` added at the listed positives (0 on padding)."""
        return add_columns(table, self.index, values)

    def negatives(self, table: Array, otherwise: float) -> Array:
        """The table, with a number where a pair is no negative; may change ``table``."""
        raise NotImplementedError

    def weigh(self, table: Array) -> Array:
        """The table times the weight of each negative; what is no negative is already 0 there."""
        raise NotImplementedError

    def negative_logits(self, logits: Array) -> Array:
        """Logits of the negatives, plus the log of their weights; −inf elsewhere; may change ``logits``."""
        raise NotImplementedError

    def valid_logits(self, logits: Array) -> Array:
        """Logits of positives and negatives, plus the log of their weights; −inf elsewhere; may change ``logits``."""
        raise NotImplementedError


class _MaskPair(Pair):
    """A strip of weights given one by one."""

    def __init__(self, xp: Namespace, positive: Array, negative: Array, totals: tuple[Array, Array]) -> None:
        self.xp, self._positive, self._negative = xp, positive, negative
        self.positive_total, self.negative_total = totals
        self.positive_count = xp.sum(positive, axis=1, keepdims=True)
        self.negative_count = xp.sum(negative, axis=1, keepdims=True)
        order = xp.argsort(xp.astype(positive != 0, xp.int8), axis=1, descending=True, stable=True)
        lengths = xp.sum(xp.astype(positive != 0, xp.int64), axis=1)
        self.index = order[:, : int(xp.max(lengths)) if positive.shape[0] else 0]
        self.weight = take_columns(xp, positive, self.index)

    def negatives(self, table: Array, otherwise: float) -> Array:
        return where(self.xp, self._negative != 0, table, otherwise)

    def weigh(self, table: Array) -> Array:
        return times(self.xp, self._negative, table)

    def negative_logits(self, logits: Array) -> Array:
        return self._weighed(logits, self._negative)

    def valid_logits(self, logits: Array) -> Array:
        return self._weighed(logits, self._positive + self._negative)

    def _weighed(self, logits: Array, weight: Array) -> Array:
        xp = self.xp
        return where(xp, weight != 0, logits + xp.log(where(xp, weight != 0, weight, 1.0)), -float("inf"))


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

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Relation, Array | None, Array | None]:
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
        ignore_references: Whether that holds for references as well; class weights stay.
    """

    labels: Any
    reference_labels: Any = None
    ignore: int | str | None = None
    ignore_references: bool = True

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
        return own, other, ignore

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
        if not self.ignore_references:
            return Labels(own[rows], other), rows, None
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
    """Labels tied to a table; lists and counts come from sorted labels, never from the table."""

    def __init__(self, xp: Namespace, own: Array, other: Array, is_self: bool, like: Array) -> None:
        self.xp, self.own, self.is_self, self.like = xp, own, is_self, like
        self.order = xp.argsort(other, stable=True)
        ordered = other[self.order]
        self.first = xp.searchsorted(ordered, own, side="left")
        self.same = xp.searchsorted(ordered, own, side="right") - self.first
        self.positives = self.same - 1 if is_self else self.same
        self.negatives = other.shape[0] - self.same
        self.totals = xp.sum(xp.astype(self.positives, xp.float64)), xp.sum(xp.astype(self.negatives, xp.float64))
        self.longest = int(xp.max(self.same)) if own.shape[0] and other.shape[0] else 0

    def strip(self, start: int, stop: int) -> Pair:
        """The lists of the strip's anchors."""
        return _LabelPair(self, slice(start, stop))


class _LabelPair(Pair):
    """A strip of a label relation: every pair that is not listed is a negative of weight 1."""

    def __init__(self, bound: BoundLabels, rows: slice) -> None:
        xp = self.xp = bound.xp
        self._rows, self._is_self = rows, bound.is_self
        self.positive_total, self.negative_total = bound.totals
        self.positive_count = xp.astype(bound.positives[rows, None], bound.like.dtype)
        self.negative_count = xp.astype(bound.negatives[rows, None], bound.like.dtype)
        first, self._same = bound.first[rows, None], bound.same[rows, None]
        place = arange(xp, bound.longest, bound.own)[None, :]
        inside = place < self._same
        # Padding repeats the first of the class; a class without references points at column 0.
        column = xp.where(inside, first + place, xp.where(self._same > 0, first, xp.zeros_like(first)))
        self.index = bound.order[column] if bound.longest else column
        if bound.is_self:
            inside = inside & (self.index != arange(xp, bound.own.shape[0], bound.own)[rows, None])
        self.weight = xp.astype(inside, bound.like.dtype)

    def negatives(self, table: Array, otherwise: float) -> Array:
        here = where(self.xp, self._same == 0, self.take(table), otherwise)
        return put_columns(table, self.index, here)

    def weigh(self, table: Array) -> Array:
        return table

    def negative_logits(self, logits: Array) -> Array:
        return self.negatives(logits, -float("inf"))

    def valid_logits(self, logits: Array) -> Array:
        if self._is_self:
            rows = arange(self.xp, logits.shape[0], logits)
            logits[rows, rows + self._rows.start] = -float("inf")
        return logits


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
        self.totals = _totals(xp, positive, negative)

    def strip(self, start: int, stop: int) -> Pair:
        """Cut the rows of the strip."""
        rows = slice(start, stop)
        return _MaskPair(self.xp, self.positive[rows], self.negative[rows], self.totals)


@dataclass(frozen=True)
class Aligned:
    """Row i of the anchors matches row i of the references, and nothing else."""

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Aligned, Array | None, Array | None]:
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
        return _MaskPair(xp, positive, negative, _totals(xp, positive, negative))


def _totals(xp: Namespace, positive: Array, negative: Array) -> tuple[Array, Array]:
    return xp.sum(positive, dtype=xp.float64), xp.sum(negative, dtype=xp.float64)
