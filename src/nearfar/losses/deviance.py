"""Binomial deviance: a logistic loss of each pair, weighed by how many pairs of its side there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, sigmoid, softplus, times, where
from nearfar._errors import InputError
from nearfar.engine import Engine
from nearfar.engine.half_tiles import ApartTiles, apart_tiles
from nearfar.engine.rules import apart
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import given_measures, given_pairs
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

INF = float("inf")


@dataclass(frozen=True)
class BinomialDevianceLoss(PairLoss):
    r"""Binomial deviance (Yi 2014).

    .. math::
        L = \operatorname{mean}_{(i, p)} \log\big(1 + e^{-\alpha (s_{ip} - \beta)}\big)
        + \operatorname{mean}_{(i, n)} \log\big(1 + e^{\alpha c (s_{in} - \beta)}\big)

    over all positive and all negative pairs of the batch; or, ``by_anchor``, over the pairs of each anchor, and then
    the mean over anchors that have a pair (the form in which Wang 2019 compares it).

    Args:
        alpha: :math:`\alpha > 0`, the slope, in one over the unit of the similarity.
        base: :math:`\beta`, the similarity around which both sides turn.
        cost: :math:`c > 0`, how much steeper negatives are.
        by_anchor: Whether the means are taken anchor by anchor.
        measure: A similarity.

    Raises:
        InputError: Hyper-parameters out of range, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> loss = nf.BinomialDevianceLoss(cost=2.0)
        >>> float(loss.similarities(np.array([0.9, 0.2]), [1, 0]).round(4))  # softplus(-0.8) + softplus(-1.2)
        0.6344

    Memory: a strip of the table.

    Reference:
        Yi, Lei, Li, "Deep Metric Learning for Practical Person Re-Identification", 2014. arXiv 1407.4979
    """

    alpha: float = 2.0
    base: float = 0.5
    cost: float = 2.0
    by_anchor: bool = False
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    reach: ClassVar[float] = INF
    learnable: ClassVar[Mapping[str, str]] = {"base": "origin"}

    def check(self) -> None:
        """Signs and finiteness."""
        for name in ("alpha", "cost"):
            if not 0 < getattr(self, name) < INF:
                raise InputError(f"expected a finite {name} > 0, got {getattr(self, name)}; alpha=2 in the paper")
        if not abs(self.base) < INF:
            raise InputError(f"expected a finite base, got {self.base}; give a similarity, 0.5 in the paper")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's pairs, or its two means."""
        return self._means(xp, s, pair) if self.by_anchor else apart(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> ApartTiles | None:
        """Half tiles, where one factor stands before all negatives."""
        return None if self.by_anchor else apart_tiles(self, xp, bound, sides)

    @property
    def in_parts(self) -> bool:
        """Where one factor stands before all pairs of a side."""
        return not self.by_anchor

    def factors_of(self, xp: Namespace, pair: Pair, like: Array) -> tuple[Array, Array]:
        """One over how many pairs there are of each side."""
        totals = (pair.positive_total, pair.negative_total)
        up, down = (xp.astype(1 / where(xp, total > 0, total, 1.0), like.dtype) for total in totals)
        return up, down

    def positive(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """Log-loss of the answer "a match"."""
        z = (self.base - s) * self.alpha
        return softplus(xp, z), sigmoid(xp, z) * -self.alpha

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """Log-loss of the answer "no match"."""
        slope = self.alpha * self.cost
        s -= self.base
        s *= slope
        return softplus(xp, s), sigmoid(xp, s) * slope

    def _means(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        near, pull = self.positive(xp, pair.take(s))
        off, push = self.negative(xp, pair.negatives(s, -INF))
        count = where(xp, pair.negative_count > 0, pair.negative_count, 1.0)
        loss = xp.sum(times(xp, pair.share, near), axis=1, keepdims=True)
        loss = loss + xp.sum(pair.weigh(off), axis=1, keepdims=True) / count
        return loss, pair.add(pair.weigh(push) / count, times(xp, pair.share, pull))

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """All anchors together make one term; by anchor, 1 where the anchor has a pair."""
        pairs = pair.positive_count + pair.negative_count
        if self.by_anchor:
            return xp.astype(pairs > 0, weight.dtype)
        return pairs / xp.astype(pair.positive_total + pair.negative_total, pairs.dtype)

    def pairs(self, left: Array, right: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of given pairs.

        Args:
            left: One side of each pair; shape (pairs, features).
            right: The other side; shape (pairs, features).
            same: 1 for similar, 0 for dissimilar; shape (pairs,).
            engine: Accepted for uniformity; given pairs make no table.
            group: Ranks over whose pairs the means are taken.
        """
        return self._evaluate(lambda: given_pairs(left, right, same), engine, group)

    def similarities(self, similarity: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of pairs whose similarity is already computed.

        Args:
            similarity: Of each pair; shape (pairs,).
            same: 1 for similar, 0 for dissimilar; shape (pairs,).
            engine: Accepted for uniformity; given similarities make no table.
            group: Ranks over whose pairs the means are taken.
        """
        return self._evaluate(lambda: given_measures("similarity", similarity, same), engine, group)
