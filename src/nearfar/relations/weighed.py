"""Relations whose weights are worked out strip by strip: shared tags, and a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from nearfar._arrays import Array, Namespace, arange, as_like, where, zeros
from nearfar._errors import InputError, ShapeError
from nearfar.relations.masks import MaskPair

Weights: TypeAlias = Callable[[Array, Array], Any]
# Rows of a strip when the weights of the whole table are added up.
ROWS = 128


@dataclass(frozen=True, eq=False)
class MultiLabels:
    r"""Items with several labels each: who shares one is positive, who shares none is negative.

    ``graded``, a positive weighs as much as the two sets overlap, :math:`|T_i \cap T_j| / |T_i \cup T_j|` (Jaccard);
    else 1. An item without a label takes part in nothing.

    Args:
        tags: 1 where an item has a label, else 0; shape (anchors, labels).
        reference_tags: The same for separate references; shape (references, labels).
        graded: Whether positives weigh by overlap.

    Raises:
        ShapeError: Tags that do not fit the batch.
        InputError: Tags of the references without references, or the reverse.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> tags = [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]  # neighbours share a label
        >>> value = nf.SupConLoss(temperature=0.5)(x, nf.MultiLabels(tags))
        >>> round(float(value), 4)
        0.7907

    Memory: a strip of the table; one product of the table's size, with as many features as labels.
    """

    tags: Any
    reference_tags: Any = None
    graded: bool = False

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[MultiLabels, Array | None, Array | None]:
        """All items stay."""
        return self, None, None

    def both_tags(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Array, Array | None]:
        """The tags of both sides in the dtype of the anchors, checked."""
        if (references is None) != (self.reference_tags is None):
            missing = "references" if references is None else "reference_tags"
            raise InputError(f"expected references and reference_tags together, got no {missing}; pass both")
        own = _tags(xp, "tags", self.tags, anchors, anchors)
        other = None if references is None else _tags(xp, "reference_tags", self.reference_tags, references, anchors)
        if other is not None and own.shape[1] != other.shape[1]:
            raise ShapeError(f"expected as many labels on both sides, got {own.shape[1]} and {other.shape[1]}; pad one")
        return own, other

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundWeights:
        """Tie the tags to a table."""
        own, other = self.both_tags(xp, anchors, references)
        other = own if other is None else other
        ours, theirs = xp.sum(own, axis=1), xp.sum(other, axis=1)

        def weights(rows: Array, columns: Array) -> tuple[Array, Array]:
            shared = own[rows] @ other[columns].T
            union = ours[rows, None] + theirs[None, columns] - shared
            some = (ours[rows, None] > 0) & (theirs[None, columns] > 0)
            positive = shared / where(xp, union > 0, union, 1.0) if self.graded else xp.astype(shared > 0, own.dtype)
            return positive, xp.astype((shared == 0) & some, own.dtype)

        return BoundWeights(xp, weights, anchors, references)


def _tags(xp: Namespace, name: str, given: Any, items: Array, like: Array) -> Array:
    tags = as_like(xp, given, like, like.dtype)
    if tags.ndim != 2 or tags.shape[0] != items.shape[0]:
        raise ShapeError(
            f"expected {name} of shape ({items.shape[0]}, labels), got {tuple(tags.shape)}; give one row of 0/1 an item"
        )
    return tags


@dataclass(frozen=True, eq=False)
class Pairwise:
    """A function of the caller's says who belongs together: graded similarity, time, place, a rule over records.

    It is asked strip by strip, so that no table of weights is ever whole.

    Args:
        weights: ``weights(rows, columns)`` → (positive, negative): for the places ``rows`` of some anchors and
            ``columns`` of all references (int64 arrays of the embeddings' library), the weight of each pair as a
            positive and as a negative; two arrays or lists of shape (rows, columns), not negative. An item's pair with
            itself is left out, whatever the function says.

    Raises:
        ShapeError: An answer of another shape.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> when = np.array([0.0, 1.0, 5.0, 6.0])  # hours: near in time is similar, and the nearer the more
        >>> def near_in_time(rows, columns):
        ...     apart = np.abs(when[rows, None] - when[None, columns])
        ...     return np.exp(-apart) * (apart < 2), apart >= 2
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> round(float(nf.SupConLoss(temperature=0.5)(x, nf.Pairwise(near_in_time))), 4)
        0.5485

    Memory: a strip of the table.
    """

    weights: Weights

    def __post_init__(self) -> None:
        """Refuse what is no function."""
        if not callable(self.weights):
            raise InputError(f"expected weights to be a function, got {self.weights!r}; for fixed weights use Mask")

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Pairwise, Array | None, Array | None]:
        """All items stay."""
        return self, None, None

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundWeights:
        """Tie the function to a table."""
        return BoundWeights(xp, self.weights, anchors, references)


class BoundWeights:
    """Weights that a function gives, on one table."""

    def __init__(self, xp: Namespace, weights: Weights, anchors: Array, references: Array | None) -> None:
        self.xp, self.weights, self.anchors, self.is_self = xp, weights, anchors, references is None
        self.rows = arange(xp, anchors.shape[0], anchors)
        self.columns = self.rows if references is None else arange(xp, references.shape[0], anchors)

    def strip(self, start: int, stop: int) -> MaskPair:
        """The weights of the strip's anchors."""
        return MaskPair(self.xp, *self.of(self.rows[start:stop]), lambda: self.totals)

    @cached_property
    def totals(self) -> tuple[Array, Array]:
        """Of the whole table, for the losses that ask."""
        xp, count = self.xp, self.anchors.shape[0]
        found = [zeros(xp, (), self.anchors, xp.float64), zeros(xp, (), self.anchors, xp.float64)]
        for start in range(0, count, ROWS):
            cut = self.of(self.rows[start : start + ROWS])
            found = [total + xp.sum(weight, dtype=xp.float64) for total, weight in zip(found, cut, strict=True)]
        return found[0], found[1]

    def of(self, rows: Array) -> tuple[Array, Array]:
        """Positive and negative weights of the anchors at these places."""
        xp, shape = self.xp, (rows.shape[0], self.columns.shape[0])
        given = self.weights(rows, self.columns)
        if not isinstance(given, tuple | list) or len(given) != 2:
            got = type(given).__name__
            raise ShapeError(
                f"expected two arrays of shape {shape}, positive and negative weights, got {got}; see Pairwise"
            )
        cut = tuple(as_like(xp, weight, self.anchors, self.anchors.dtype) for weight in given)
        if [tuple(weight.shape) for weight in cut] != [shape, shape]:
            got = " and ".join(str(tuple(weight.shape)) for weight in cut)
            raise ShapeError(
                f"expected two arrays of shape {shape}, positive and negative weights, got {got}; see Pairwise"
            )
        if self.is_self:
            apart = rows[:, None] != self.columns[None, :]
            cut = tuple(where(xp, apart, weight, 0.0) for weight in cut)
        return cut[0], cut[1]
