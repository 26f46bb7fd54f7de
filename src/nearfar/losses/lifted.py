"""Lifted structure: each positive pair against the negatives of both its items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, exp_pair, relu, times
from nearfar._errors import InputError
from nearfar.losses.base import PairLoss
from nearfar.measures import Distance, Euclidean
from nearfar.relations import Pair


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
