"""Magnet loss: every item nearer to a cluster of its own class than to those of the others, by a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, add_columns, relu, step, take_columns, where
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_both
from nearfar.measures import Distance, SquaredEuclidean
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

INF = float("inf")


@dataclass(frozen=True)
class MagnetLoss(PairLoss):
    r"""Magnet loss (Rippel 2016): clusters are references, several a class.

    .. math::
        \ell_i = \max\Big(\alpha + \frac{d_i}{2 \sigma^2}
        + \log \sum_{k \in N_i} e^{-d_{ik} / (2 \sigma^2)}, \ 0\Big), \qquad d_i = \min_{k \in P_i} d_{ik}

    with :math:`P_i` the clusters of the item's class and :math:`N_i` those of the others; the mean over items that have
    both. The paper takes the cluster that k-means assigned, which is the nearest when it has just run.

    Args:
        margin: :math:`\alpha`.
        variance: :math:`\sigma^2 > 0`, of the items around their own clusters, in the unit of the squared distance;
            :meth:`fitted` measures it. It is a constant of the gradient.
        measure: A distance; the paper's is the squared one.

    Raises:
        InputError: A margin that is not finite, a variance that is not positive, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, y = np.array([[0.0, 0.1], [0.1, 2.0], [2.0, 0.0]]), [0, 0, 1]
        >>> clusters, classes = np.array([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]), [0, 0, 1]
        >>> loss = nf.MagnetLoss(margin=1.0, variance=1.0)
        >>> float(loss(x, y, references=clusters, reference_labels=classes).round(4))  # (1 + 0.005 - 0.505 + 0 + 0) / 3
        0.1667

    Memory: a strip of the table of items and clusters.

    Reference:
        Rippel et al., "Metric Learning with Adaptive Density Discrimination", ICLR 2016. arXiv 1511.05939
    """

    margin: float = 1.0
    variance: float = 1.0
    measure: Distance = SquaredEuclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Margin and variance."""
        if not abs(self.margin) < INF:
            raise InputError(f"expected a finite margin, got {self.margin}; the gap between exponents, for example 1")
        if not 0 < self.variance < INF:
            raise InputError(f"expected a finite variance > 0, got {self.variance}; loss.fitted(...) measures it")

    def fitted(self, embeddings: Array, labels: Any, references: Array, reference_labels: Any) -> MagnetLoss:
        """The same loss with the variance of these items around the nearest clusters of their classes.

        Args:
            embeddings: Shape (items, features).
            labels: One label an item.
            references: The clusters' means; shape (clusters, features).
            reference_labels: One label a cluster.

        Raises:
            InputError: No two items, or all of them at their clusters' means.
        """
        from nearfar.losses.lmnn import LMNNLoss

        count = embeddings.shape[0]
        nearest = LMNNLoss(neighbours=1, push=0.0, measure=self.measure).per_anchor(
            embeddings, labels, references=references, reference_labels=reference_labels
        )
        variance = float(nearest.sum()) / max(count - 1, 1)
        return MagnetLoss(self.margin, variance, self.measure)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """The nearest own cluster against the log-sum-exp of the others."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """Minus the distance in units of twice the variance."""
        rate = -0.5 / self.variance
        s *= rate
        return s, rate

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The hinge, and its one positive."""
        if positive.shape[1] == 0:
            return xp.zeros_like(pool), xp.zeros_like(pool), positive
        inside = where(xp, pair.weight > 0, positive, INF)
        place = xp.argmin(inside, axis=1)[:, None]
        loss = relu(xp, pool + (self.margin + take_columns(xp, inside, place) * (0.5 / self.variance)))
        felt = step(xp, xp.asarray(loss, copy=True))
        return loss, felt, add_columns(xp.zeros_like(positive), place, felt * (0.5 / self.variance))

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the item has a cluster of its own class and one of another."""
        return has_both(xp, pair, weight)
