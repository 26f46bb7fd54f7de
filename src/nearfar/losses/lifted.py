"""Lifted structure: each positive pair against the negatives of both its items; generalised: each anchor's pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, exp_pair, relu, step, times
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_both, positive_pool
from nearfar.measures import Distance, Euclidean
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class LiftedStructureLoss(PairLoss):
    r"""Lifted structured embedding (Song 2016).

    .. math::
        J_{ij} = \log\Big(\sum_{k \in N_i} e^{m - d_{ik}} + \sum_{l \in N_j} e^{m - d_{jl}}\Big) + d_{ij}, \qquad
        \ell = \tfrac12 \max(J_{ij}, 0)^2

    and the mean over all ordered positive pairs, which is the paper's sum over unordered pairs by twice their number.
    With separate references :math:`N_j`, the negatives of a reference, are the anchors of other classes; references
    equal to the batch pair every item with itself too.

    Args:
        margin: :math:`m`, in the unit of the distance.
        measure: A distance; the paper does not normalise.

    Raises:
        InputError: A margin that is not a number, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
        >>> float(nf.LiftedStructureLoss(margin=1.0)(x, [0, 0, 1, 1]).round(4))
        0.8131

    Memory: a strip of the table and each anchor's positives.

    Reference:
        Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016, eq. (4).
    """

    margin: float = 1.0
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Margin."""
        if not abs(self.margin) < float("inf"):
            raise InputError(f"expected a finite margin, got {self.margin}; give it in the unit of the distance")

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """What is missing to the margin."""
        s *= -1
        s += self.margin
        return s, -1.0

    def couple(
        self, xp: Namespace, positive: Array, own: Array, others: Array, pair: Pair
    ) -> tuple[Array, Array, Array, Array]:
        """Half the squared hinge of each positive pair's J."""
        both, own_share, other_share = exp_pair(xp, own, others)
        hinge = relu(xp, both + positive)
        loss = xp.sum(times(xp, pair.weight, hinge * hinge / 2), axis=1)
        pull = times(xp, pair.weight, hinge)
        by_own = xp.sum(times(xp, pull, own_share), axis=1, keepdims=True)
        return loss, by_own, times(xp, pull, other_share), pull

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each positive is a term, where the anchor has a negative."""
        return pair.positive_count * xp.astype(pair.negative_count > 0, pair.weight.dtype)


@dataclass(frozen=True)
class GeneralizedLiftedStructureLoss(PairLoss):
    r"""Generalised lifted structure (Hermans 2017): the soft farthest positive against the soft nearest negative.

    .. math::
        \ell_i = \max\Big(\log \sum_{p \in P_i} e^{d_{ip}} + \log \sum_{n \in N_i} e^{m - d_{in}}, \ 0\Big)

    and the mean over anchors that have a positive and a negative. (The paper sums.)

    Args:
        margin: :math:`m`, in the unit of the distance.
        measure: A distance.

    Raises:
        InputError: A margin that is not a number, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
        >>> float(nf.GeneralizedLiftedStructureLoss(margin=1.0)(x, [0, 0, 1, 1]).round(4))
        0.5821

    Memory: a strip of the table and each anchor's positives.

    Reference:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, section 2.
        arXiv 1703.07737
    """

    margin: float = 1.0
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Margin."""
        if not abs(self.margin) < float("inf"):
            raise InputError(f"expected a finite margin, got {self.margin}; give it in the unit of the distance")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Both log-sum-exps under one hinge."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """What is missing to the margin."""
        s *= -1
        s += self.margin
        return s, -1.0

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The hinge of the two pools."""
        own, share = positive_pool(xp, positive, pair)
        loss = relu(xp, own + pool)
        felt = step(xp, xp.asarray(loss, copy=True))
        return loss, felt, times(xp, share, felt)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)
