"""Losses on who an anchor's neighbours are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, sigmoid, softplus, times
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import positive_pool
from nearfar.losses.softmax import check_temperature, logit
from nearfar.measures import Distance, SquaredEuclidean
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class NCALoss(PairLoss):
    r"""Neighbourhood components analysis as a loss: how probable it is to pick a neighbour of the own class.

    .. math::
        \ell_i = -\log \sum_{p \in P_i} \frac{e^{-d_{ip} / \tau}}{\sum_{a \in A_i} e^{-d_{ia} / \tau}}

    and the mean over anchors that have a positive. The paper maximises the sum of the logarithms of these probabilities
    :math:`p_i`, as here, or of the probabilities themselves: with ``log=False`` :math:`\ell_i = 1 - p_i`.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the distance; 1 in the paper.
        measure: A distance; squared in the paper.
        log: Whether the loss is of the log-probability.

    Raises:
        InputError: A temperature that is not positive, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> float(nf.NCALoss()(x, [0, 0, 1]).round(4))  # (log(1 + exp(1 - 4)) + log(1 + exp(1 - 5))) / 2
        0.0334

    Memory: a strip of the table.

    Reference:
        Goldberger et al., "Neighbourhood Components Analysis", NIPS 2004, eq. (1), (2).
    """

    temperature: float = 1.0
    measure: Distance = SquaredEuclidean()  # noqa: RUF009  (frozen, without state)
    log: bool = True

    kind: ClassVar[str] = "distance"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """The odds against the own class, as log-sum-exps."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """Minus the distance over the temperature."""
        return logit(s, -self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """All positives together against all negatives: softplus(pool of negatives − pool of positives)."""
        odds, share = _odds(xp, positive, pool, pair, self.temperature)
        missing = sigmoid(xp, odds)
        by_odds = missing if self.log else missing * sigmoid(xp, -odds)
        loss = softplus(xp, odds) if self.log else missing
        return loss, by_odds, times(xp, share, by_odds) / self.temperature


@dataclass(frozen=True)
class SoftNearestNeighborLoss(PairLoss):
    r"""Soft nearest neighbour loss (Frosst 2019): NCA's log-probability of the own class, at a temperature.

    .. math::
        \ell_i = -\log \frac{\sum_{p \in P_i} e^{-d_{ip} / \tau}}{\sum_{a \in A_i} e^{-d_{ia} / \tau}}

    and the mean over anchors that have a positive: the function of :class:`NCALoss`. The paper measures entanglement
    with it, learns :math:`\tau`, and also maximises it.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the distance.
        measure: A distance; squared in the paper.

    Raises:
        InputError: A temperature that is not positive, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> float(nf.SoftNearestNeighborLoss(temperature=2.0)(x, [0, 0, 1]).round(4))
        0.1642

    Memory: a strip of the table.

    Reference:
        Frosst, Papernot, Hinton, "Analyzing and Improving Representations with the Soft Nearest Neighbor Loss", ICML
        2019, eq. (1). arXiv 1902.01889
    """

    temperature: float = 1.0
    measure: Distance = SquaredEuclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """The odds against the own class, as log-sum-exps."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """Minus the distance over the temperature."""
        return logit(s, -self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """As of :class:`NCALoss`."""
        odds, share = _odds(xp, positive, pool, pair, self.temperature)
        missing = sigmoid(xp, odds)
        return softplus(xp, odds), missing, times(xp, share, missing) / self.temperature


def _odds(xp: Namespace, positive: Array, pool: Array, pair: Pair, temperature: float) -> tuple[Array, Array]:
    """Log-odds against the own class, pool of negatives − pool of positives, and each positive's share of its pool."""
    own, share = positive_pool(xp, positive / -temperature, pair)
    return pool - own, share
