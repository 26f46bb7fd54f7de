"""Contrastive loss: like pairs pulled together, unlike pairs pushed beyond a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, relu, step, times, where
from nearfar._errors import InputError
from nearfar.engine import Engine
from nearfar.engine.half_tiles import ApartTiles, apart_tiles
from nearfar.engine.rules import apart
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import given_measures, given_pairs
from nearfar.measures import Distance, Euclidean
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class ContrastiveLoss(PairLoss):
    r"""Contrastive loss of a Siamese network (Hadsell 2006).

    .. math::
        \ell = \tfrac12 \, y \, d^2 + \tfrac12 \, (1 - y) \max(m - d, 0)^2

    with :math:`y = 1` for similar pairs; the mean over all pairs (of a labelled batch: all unordered pairs).

    Args:
        margin: :math:`m`, in the unit of the distance: unlike pairs farther apart add nothing.
        balanced: Average positives and negatives apart and add the two means.
        factors: What stands before the positive and the negative term; (½, ½) in the paper.
        powers: The power, 1 or 2, of :math:`d` and of :math:`\max(m - d, 0)`; (2, 2) in the paper.
        measure: A distance.
        positive_margin: Taken off the positives' distance: :math:`\max(d - m_+, 0)` instead of :math:`d`.
        active_only: Mean over the pairs above 0 (other libraries; it rises while training succeeds). A side whose
            factor is 0 has none, so that a mean for each side is a sum of two losses.

    Raises:
        InputError: A negative margin, one that is not finite, a power other than 1 and 2, ``balanced`` with
            ``active_only``, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> left = np.array([[0.0, 0.0], [0.0, 0.0]])
        >>> right = np.array([[0.3, 0.4], [0.0, 0.8]])
        >>> same = np.array([1, 0])
        >>> float(nf.ContrastiveLoss(margin=1.0).pairs(left, right, same).round(4))  # (0.5·0.5² + 0.5·0.2²) / 2
        0.0725

    Memory: a strip of the table. Other libraries' defaults differ (no ½, plain powers, means over active pairs):
    :mod:`nearfar.conventions`.

    Reference:
        Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, eq. (4);
        there label 0 means similar.
    """

    margin: float = 1.0
    balanced: bool = False
    factors: tuple[float, float] = (0.5, 0.5)
    powers: tuple[int, int] = (2, 2)
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)
    positive_margin: float = 0.0
    active_only: bool = False

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Margins and powers."""
        if not 0 <= self.margin < float("inf"):
            raise InputError(
                f"expected a finite margin >= 0, got {self.margin}; give the distance beyond which pairs rest"
            )
        if any(p not in (1, 2) for p in self.powers):
            raise InputError(f"expected powers of 1 or 2, got {self.powers}; the paper's are (2, 2)")
        if not abs(self.positive_margin) < float("inf"):
            raise InputError(f"expected a finite positive_margin, got {self.positive_margin}; 0 in the paper")
        if self.balanced and self.active_only:
            raise InputError(
                "expected balanced or active_only, got both; add two losses with active_only, one with the factors "
                "(f, 0) and one with (0, f)"
            )

    @property
    def in_parts(self) -> bool:
        """Not where the mean waits for the pairs above 0."""
        return not self.active_only

    @property
    def reach(self) -> float:
        """The margin: negatives beyond it rest."""
        return self.margin

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's pairs."""
        return apart(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> ApartTiles | None:
        """Half tiles; not where the mean waits for the pairs above 0."""
        return None if self.active_only else apart_tiles(self, xp, bound, sides)

    def factors_of(self, xp: Namespace, pair: Pair, like: Array) -> tuple[Array | float, Array | float]:
        """The factors; with ``balanced`` over how many pairs there are of each side."""
        up, down = self.factors
        if not self.balanced:
            return up, down
        return up / _at_least_one(xp, pair.positive_total, like), down / _at_least_one(xp, pair.negative_total, like)

    def positive(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """A power of the distance, or of what it exceeds the margin of positives by."""
        return _power(xp, relu(xp, s - self.positive_margin) if self.positive_margin else s, self.powers[0])

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """A power of what is missing to the margin."""
        s *= -1
        s += self.margin
        value, slope = _power(xp, relu(xp, s), self.powers[1])
        slope *= -1
        return value, slope

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each pair is a term, or each that weighs; with ``balanced`` all anchors together make one."""
        if self.active_only:
            return _active(xp, pair, weight)
        pairs = pair.positive_count + pair.negative_count
        if not self.balanced:
            return pairs
        return pairs / xp.astype(pair.positive_total + pair.negative_total, pairs.dtype)

    def pairs(self, left: Array, right: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of given pairs, the form of a Siamese network.

        Args:
            left: One side of each pair; shape (pairs, features).
            right: The other side; shape (pairs, features).
            same: 1 for similar, 0 for dissimilar; shape (pairs,).
            engine: Accepted for uniformity; given pairs make no table.
            group: Ranks over whose pairs the mean is taken.

        Returns:
            The mean over pairs.
        """
        return self._evaluate(lambda: given_pairs(left, right, same), engine, group)

    def distances(self, distance: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of pairs whose distance is already computed.

        Args:
            distance: Distance of each pair; shape (pairs,).
            same: 1 for similar, 0 for dissimilar; shape (pairs,).
            engine: Accepted for uniformity; given distances make no table.
            group: Ranks over whose pairs the mean is taken.

        Returns:
            The mean over pairs.
        """
        return self._evaluate(lambda: given_measures("distance", distance, same), engine, group)


def _power(xp: Namespace, z: Array, power: int) -> tuple[Array, Array]:
    """``z ** power`` and its derivative, 0 at z = 0."""
    if power == 2:
        return z * z, 2 * z
    return z, step(xp, xp.asarray(z, copy=True))


def _active(xp: Namespace, pair: Pair, weight: Array) -> Array:
    """How many of each anchor's pairs weigh something, counted by the weights of the relation."""
    some = xp.astype(weight != 0, pair.weight.dtype)
    near = xp.sum(times(xp, pair.weight, pair.take(some)), axis=1)
    return near + xp.sum(pair.weigh(pair.negatives(some, 0.0)), axis=1)


def _at_least_one(xp: Namespace, total: Array, like: Array) -> Array:
    return xp.astype(where(xp, total > 0, total, 1.0), like.dtype)
