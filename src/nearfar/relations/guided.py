"""A relation that another model's embeddings correct: what they find as near as the positive is no negative."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

from nearfar._arrays import Array, Namespace, as_like, times, where
from nearfar._errors import InputError, ShapeError
from nearfar.measures.base import normalise
from nearfar.relations.pair import BoundRelation, Pair, Relation

INF = float("inf")


@dataclass(frozen=True, eq=False)
class Guided:
    r"""A relation without its probable false negatives, by the cosine :math:`g` of a guide's embeddings (GISTEmbed).

    A negative n of anchor i stays one if

    .. math::
        g_{in} \le \operatorname{mean}_{p \in P_i} g_{ip} - m

    or, ``relative``, :math:`m` times the size of that mean lower; else the pair is left out. Positives stay, and all
    negatives of an anchor without a positive. ``loss(x, Guided(Labels(y), guide))`` for a batch,
    ``loss(queries, Guided(Aligned(), guide_q, guide_d), references=documents)`` for one direction of two.

    Args:
        relation: Who belongs together: :class:`Labels`, :class:`Aligned`, :class:`Mask`.
        guide: The guide's embeddings of the anchors; shape (anchors, any features). No gradient reaches them.
        reference_guide: The guide's embeddings of the references, where there are any.
        margin: :math:`m`; larger leaves out more.
        relative: Whether the margin is a share of the positive's similarity, in size.

    Raises:
        InputError: A margin that is not finite, or the guide's references without references or the reverse.
        ShapeError: Embeddings of the guide that do not fit the batch.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> guide = np.array([[1.0, 0.0], [0.8, 0.6], [1.0, 0.1], [0.0, 1.0]])  # the third is much like the first
        >>> relation = nf.Guided(nf.Labels([0, 0, 1, 1]), guide)
        >>> value = nf.InfoNCELoss(0.5)(x, relation)
        >>> bool(value < nf.InfoNCELoss(0.5)(x, [0, 0, 1, 1]))
        True

    Memory: a strip of the guide's table; one more product of the table's size.

    Reference:
        Solatorio, "GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning", 2024.
        arXiv 2402.16829 (margins: sentence-transformers).
    """

    relation: Relation
    guide: Array
    reference_guide: Array | None = None
    margin: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no relation, and a margin that is no number."""
        if not hasattr(self.relation, "kept"):
            got = type(self.relation).__name__
            raise InputError(f"expected a relation, got {got}; for example nf.Guided(nf.Labels(labels), guide)")
        margin: Any = self.margin
        if not isinstance(margin, Real) or not abs(float(margin)) < INF:
            raise InputError(f"expected a finite margin, got {self.margin}; 0 in the paper")

    def kept(
        self, xp: Namespace, anchors: Array, references: Array | None
    ) -> tuple[Guided, Array | None, Array | None]:
        """The items that the inner relation keeps."""
        relation, rows, columns = self.relation.kept(xp, anchors, references)
        guide, others = self.guides(xp, anchors, references)
        guide = guide if rows is None else guide[rows]
        others = others if others is None or columns is None else others[columns]
        return Guided(relation, guide, others, self.margin, self.relative), rows, columns

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundGuided:
        """Tie to a table."""
        guide, others = (None if g is None else normalise(xp, g)[0] for g in self.guides(xp, anchors, references))
        return BoundGuided(
            self, xp, self.relation.bind(xp, anchors, references), guide, guide if others is None else others
        )

    def guides(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Array, Array | None]:
        """The guide's embeddings of both sides, checked."""
        if (references is None) != (self.reference_guide is None):
            missing = "references" if references is None else "reference_guide"
            raise InputError(f"expected references and reference_guide together, got no {missing}; pass both")
        guides = [("guide", self.guide, anchors), ("reference_guide", self.reference_guide, references)]
        found: list[Any] = []
        for name, given, items in guides:
            guide = None if given is None else as_like(xp, given, anchors, anchors.dtype)
            if guide is not None and items is not None and (guide.ndim != 2 or guide.shape[0] != items.shape[0]):
                raise ShapeError(f"expected {name} of {items.shape[0]} rows, got {tuple(guide.shape)}; one an item")
            found.append(guide)
        return found[0], found[1]


class BoundGuided:
    """A guided relation on a table."""

    def __init__(self, guided: Guided, xp: Namespace, inner: BoundRelation, guide: Array, others: Array) -> None:
        self.guided, self.xp, self.inner, self.guide, self.others = guided, xp, inner, guide, others

    def strip(self, start: int, stop: int) -> GuidedPair:
        """The inner relation's strip without what the guide leaves out."""
        return self.corrected(self.inner.strip(start, stop), self.guide[start:stop])

    def corrected(self, pair: Pair, guide: Array) -> GuidedPair:
        """A strip without what the guide leaves out; ``guide`` has the rows of its anchors."""
        xp, table = self.xp, guide @ self.others.T
        positive = xp.sum(times(xp, pair.share, pair.take(table)), axis=1, keepdims=True)
        # Of the size of the similarity, so that a positive below 0 leaves out more as well.
        share = xp.abs(positive) if self.guided.relative else 1.0
        least = positive - share * self.guided.margin
        return GuidedPair(self, pair, (table <= least) | (pair.positive_count == 0))

    @cached_property
    def negative_total(self) -> Array:
        """Weight of all negatives that stay: the guide's whole table, once, for the losses that ask."""
        count, total = self.guide.shape[0], self.xp.sum(self.guide[:0], dtype=self.xp.float64)
        for start in range(0, count, 128):
            strip = self.strip(start, min(start + 128, count))
            total = total + self.xp.sum(strip.negative_count, dtype=self.xp.float64)
        return total


class GuidedPair(Pair):
    """A strip of another relation, some of whose negatives are left out."""

    def __init__(self, bound: BoundGuided, inner: Pair, stays: Array) -> None:
        self.xp, self._bound, self._inner, self._stays = bound.xp, bound, inner, stays
        self.index, self.weight = inner.index, inner.weight
        self.positive_count, self.positive_total = inner.positive_count, inner.positive_total
        ones = self.xp.astype(stays, inner.weight.dtype)
        self.negative_count = self.xp.sum(self.weigh(self.negatives(ones, 0.0)), axis=1, keepdims=True)

    @cached_property
    def negative_total(self) -> Array:
        """Of the whole table."""
        return self._bound.negative_total

    def negatives(self, table: Array, otherwise: float) -> Array:
        """Another number where the guide leaves out as well."""
        return where(self.xp, self._stays, self._inner.negatives(table, otherwise), otherwise)

    def weigh(self, table: Array) -> Array:
        """As of the inner relation."""
        return self._inner.weigh(table)

    def negative_logits(self, logits: Array) -> Array:
        """−inf where the guide leaves out as well."""
        return where(self.xp, self._stays, self._inner.negative_logits(logits), -INF)

    def valid_logits(self, logits: Array) -> Array:
        """Positives, and negatives that stay."""
        listed = self.add(self.xp.zeros_like(logits), self.weight) > 0
        return where(self.xp, self._stays | listed, self._inner.valid_logits(logits), -INF)
