"""Circle loss: each pair pulled or pushed the harder the farther it is from its optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, relu, sigmoid, softplus, times
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_both, positive_pool
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class CircleLoss(PairLoss):
    r"""Circle loss (Sun 2020).

    .. math::
        \ell_i = \log\Big(1 + \sum_{n \in N_i} e^{\gamma \alpha_{in} (s_{in} - m)}
        \sum_{p \in P_i} e^{-\gamma \alpha_{ip} (s_{ip} - (1 - m))}\Big), \qquad
        \alpha_{ip} = \max(1 + m - s_{ip}, 0), \quad \alpha_{in} = \max(s_{in} + m, 0)

    and the mean over anchors that have a positive and a negative. As in the authors' code the gradient takes every
    :math:`\alpha` as a constant, so it is not the derivative of the value: a check by finite differences fails, and
    is meant to.

    Args:
        margin: :math:`m`; positives aim at 1 + m, negatives at −m.
        scale: :math:`\gamma > 0`. The paper: m = 0.4, γ = 80 for retrieval; 0.25, 256 for faces.
        measure: A similarity; the margins are meant for values from −1 to 1.

    Raises:
        InputError: A margin that is not finite, a scale that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.CircleLoss()(x, [0, 0, 1, 1]).round(4))
        28.8648

    Memory: a strip of the table.

    Reference:
        Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020, sections 3.2
        and 3.3. arXiv 2002.10857
    """

    margin: float = 0.4
    scale: float = 80.0
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"

    def check(self) -> None:
        """Margin and scale."""
        if not abs(self.margin) < float("inf"):
            raise InputError(f"expected a finite margin, got {self.margin}; typical values are 0.25 and 0.4")
        if not 0 < self.scale < float("inf"):
            raise InputError(f"expected a finite scale > 0, got {self.scale}; typical values are 80 to 256")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Both log-sum-exps under one softplus."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """γ α (s − m), and γ α alone as its derivative."""
        pace = relu(xp, s + self.margin)
        pace *= self.scale
        s -= self.margin
        s *= pace
        return s, pace

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """softplus(pool of positives + pool of negatives)."""
        pace = self.scale * relu(xp, 1 + self.margin - positive)
        own, share = positive_pool(xp, pace * (1 - self.margin - positive), pair)
        both = own + pool
        felt = sigmoid(xp, both)
        return softplus(xp, both), felt, -times(xp, times(xp, share, felt), pace)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)
