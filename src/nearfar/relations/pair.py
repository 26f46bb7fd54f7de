"""The relation on one strip, and what a relation must offer."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Protocol

from nearfar._arrays import (
    Array,
    Namespace,
    add_columns,
    at_least,
    take_columns,
    where,
)


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
        uniform: Whether every pair weighs 1.
    """

    uniform: ClassVar[bool] = False
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
        if self.uniform:
            return self.weight / at_least(self.xp, self.positive_count, 1.0)
        return self.weight / where(self.xp, self.positive_count > 0, self.positive_count, 1.0)

    def listed(self, longest: int, weighed: bool = False) -> tuple[Array, Array]:
        """Columns and shares (or weights) of the positives, those that are there before the padding.

        ``longest`` of each list.
        """
        order = self.xp.argsort(self.weight == 0, axis=1, stable=True)[:, :longest]
        return take_columns(self.xp, self.index, order), take_columns(
            self.xp, self.weight if weighed else self.share, order
        )

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
