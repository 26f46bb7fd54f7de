"""Relations by label: equal labels, or aligned rows."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from nearfar._arrays import (
    Array,
    Namespace,
    arange,
    extremes,
    followed,
    integers,
    is_jax,
    put_columns,
    where,
)
from nearfar._errors import InputError, ShapeError
from nearfar.relations.pair import Pair


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

    def codes(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Array, Array, int | None]:
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
        ignore = ignored(self.ignore)
        if (isinstance(ignore, str) and not book and own.shape[0]) or (isinstance(ignore, int) and book):
            raise InputError(
                f"expected ignore_label of the kind of the labels, got {ignore!r} beside "
                f"{'strings' if book else 'integers'}; name one of the labels"
            )
        return own, other, book.get(ignore) if isinstance(ignore, str) else ignore

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Labels, Array | None, Array | None]:
        """Leave out the items of the ignored label."""
        own, other, ignore = self.codes(xp, anchors, references)
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
        own, other, _ = self.codes(xp, anchors, references)
        return BoundLabels(xp, own, other, references is None, anchors)


def ignored(label: Any) -> int | str | None:
    """The label to ignore as one number or string."""
    if label is None or isinstance(label, str):
        return label
    try:
        return operator.index(label)
    except TypeError:
        raise InputError(
            f"expected ignore_label to be one integer or string, got {label!r}; give unknown items one label"
        ) from None


def _expect_count(name: str, codes: Array, items: Array) -> None:
    if codes.shape[0] != items.shape[0]:
        raise ShapeError(
            f"expected {name} of shape ({items.shape[0]},), one for each item, got {tuple(codes.shape)}; "
            "check that both come from the same batch"
        )


def expect_classes(xp: Namespace, labels: Array, classes: int, ignore: int | None) -> None:
    """Raise unless every label is a class or the ignored one; traced labels have no value to look at."""
    if is_jax(labels) or followed() or labels.shape[0] == 0:
        return
    least, most = extremes(xp, labels)
    if least >= 0 and most < classes:
        return
    outside = labels[(labels < 0) | (labels >= classes)]
    outside = outside if ignore is None else outside[outside != ignore]
    if outside.shape[0]:
        raise InputError(
            f"expected labels from 0 to {classes - 1}, one for each of {classes} classes, got {int(outside[0])}; "
            "number the classes from 0, and name a label that stands for none as ignore_label"
        )


class BoundLabels:
    """Labels tied to a table; lists and counts come from sorted labels, never from the table."""

    def __init__(
        self, xp: Namespace, own: Array, other: Array, is_self: bool, like: Array, aligned: bool = False
    ) -> None:
        self.xp, self.own, self.is_self, self.like, self.aligned = xp, own, is_self, like, aligned
        self.other = other
        self.order = xp.argsort(other, stable=True)
        ordered = other[self.order]
        self.first = xp.searchsorted(ordered, own, side="left")
        self.same = xp.searchsorted(ordered, own, side="right") - self.first
        self.positives = self.same - 1 if is_self else self.same
        self.negatives = other.shape[0] - self.same
        self.shortest, self.longest = 0, 0
        if own.shape[0] and other.shape[0]:
            self.shortest, self.longest = (int(count) for count in extremes(xp, self.same))

    @cached_property
    def totals(self) -> tuple[Array, Array]:
        """How many positive and negative pairs the table has."""
        return tuple(self.xp.sum(count, dtype=self.xp.float64) for count in (self.positives, self.negatives))

    def strip(self, start: int, stop: int) -> Pair:
        """The lists of the strip's anchors."""
        return LabelPair(self, slice(start, stop))


class LabelPair(Pair):
    """A strip of a label relation: every pair that is not listed is a negative of weight 1."""

    uniform: ClassVar[bool] = True

    def __init__(self, bound: BoundLabels, rows: slice) -> None:
        xp = self.xp = bound.xp
        self._rows, self._is_self, self._bound = rows, bound.is_self, bound
        self.positive_count = xp.astype(bound.positives[rows, None], bound.like.dtype)
        self.negative_count = xp.astype(bound.negatives[rows, None], bound.like.dtype)
        first, self._same = bound.first[rows, None], bound.same[rows, None]
        place = first + arange(xp, bound.longest, bound.own)[None, :]
        inside = None
        if bound.shortest < bound.longest:
            inside = place < first + self._same
            # Padding repeats the first of the class; a class without references points at column 0.
            if not bound.is_self:
                first = xp.where(self._same > 0, first, xp.zeros_like(first))
            place = xp.where(inside, place, first)
        self.index = bound.order[place] if bound.longest else place
        if bound.is_self:
            others = self.index != arange(xp, bound.own.shape[0], bound.own)[rows, None]
            inside = others if inside is None else inside & others
        self.weight = xp.ones_like(place) if inside is None else inside
        self.weight = xp.astype(self.weight, bound.like.dtype)

    @cached_property
    def positive_total(self) -> Array:
        """Of the whole table."""
        return self._bound.totals[0]

    @cached_property
    def negative_total(self) -> Array:
        """Of the whole table."""
        return self._bound.totals[1]

    def negatives(self, table: Array, otherwise: float) -> Array:
        """Another number at the list."""
        if self._is_self or self._bound.shortest:
            return put_columns(table, self.index, otherwise)
        here = where(self.xp, self._same == 0, self.take(table), otherwise)
        return put_columns(table, self.index, here)

    def weigh(self, table: Array) -> Array:
        """Every negative weighs 1."""
        return table

    def negative_logits(self, logits: Array) -> Array:
        """−inf at the list."""
        return self.negatives(logits, -float("inf"))

    def valid_logits(self, logits: Array) -> Array:
        """−inf where an item meets itself."""
        if self._is_self:
            rows = arange(self.xp, logits.shape[0], logits)
            logits[rows, rows + self._rows.start] = -float("inf")
        return logits


@dataclass(frozen=True)
class Aligned:
    """Row i of the anchors matches row i of the references, and nothing else."""

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Aligned, Array | None, Array | None]:
        """All items stay."""
        return self, None, None

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundLabels:
        """Tie to a table whose two sides have as many rows."""
        own, other, _ = self.codes(xp, anchors, references)
        return BoundLabels(xp, own, other, False, anchors, aligned=True)

    def codes(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Array, Array, None]:
        """The places of the rows as labels of both sides."""
        if references is None or references.shape[0] != anchors.shape[0]:
            got = "no references" if references is None else f"{anchors.shape[0]} and {references.shape[0]}"
            raise ShapeError(f"expected as many references as anchors, got {got}; align the two batches row by row")
        index = arange(xp, anchors.shape[0], anchors)
        return index, index, None
