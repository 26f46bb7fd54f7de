"""Tuplet margin loss: a softmax whose positives may stand a little off before they are pulled in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, sigmoid, softplus, times, where
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import positives_or_one, share_of
from nearfar.measures import CosineDistance
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class TupletMarginLoss(PairLoss):
    r"""Tuplet margin loss (Yu and Tao 2019).

    .. math::
        \ell_i = \frac{1}{|P_i|} \sum_{p \in P_i}
        \log\Big(1 + \sum_{n \in N_i} e^{s (\cos\theta_{in} - \cos(\theta_{ip} - \beta))}\Big)

    and the mean over anchors that have a positive and a negative. A positive nearer than the slack :math:`\beta` is
    pushed out to it, which keeps hard tuplets from overfitting. Defined on the cosine distance, from which the sine of
    a small angle comes out right.

    Args:
        margin: :math:`\beta` in [0, π), in radians (other libraries: 5.73 degrees).
        scale: :math:`s > 0`.
        measure: The cosine distance.
        by_pair: Mean over the positive pairs instead, as in other libraries: an anchor counts as often as it has
            positives.

    Raises:
        InputError: A margin or scale out of range, or another measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.TupletMarginLoss()(x, [0, 0, 1, 1]).round(4))
        3.3317

    Memory: a strip of the table and each anchor's positives.

    Reference:
        Yu, Tao, "Deep Metric Learning with Tuplet Margin Loss", ICCV 2019.
    """

    margin: float = 0.1
    scale: float = 64.0
    measure: CosineDistance = CosineDistance()  # noqa: RUF009  (frozen, without state)
    by_pair: bool = False

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Margin, scale and measure."""
        if not 0 <= self.margin < math.pi:
            raise InputError(f"expected margin in [0, π), got {self.margin}; give it in radians, for example 0.1")
        if not 0 < self.scale < float("inf"):
            raise InputError(f"expected a finite scale > 0, got {self.scale}; the paper's is 64")
        if not isinstance(self.measure, CosineDistance):
            raise InputError(
                f"expected measure of TupletMarginLoss to be CosineDistance(), got {type(self.measure).__name__}; "
                "the margin is an angle"
            )

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One log-odds term a positive."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The scaled cosine."""
        s *= -self.scale
        s += self.scale
        return s, -self.scale

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """Each positive alone, its slack taken off, against the negatives."""
        target, slope = self._with_slack(xp, positive)
        odds = pool - self.scale * target
        share = share_of(pair, self.by_pair)
        loss = xp.sum(times(xp, share, softplus(xp, odds)), axis=1)
        missing = times(xp, share, sigmoid(xp, odds))
        return loss, xp.sum(missing, axis=1, keepdims=True), times(xp, missing, -self.scale * slope)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative; with ``by_pair`` each positive is a term."""
        return positives_or_one(xp, pair, weight, self.by_pair)

    def _with_slack(self, xp: Namespace, d: Array) -> tuple[Array, Array]:
        """cos(θ − β) and its derivative by the distance 1 − cos θ; at θ = 0 that of its first part."""
        square = d * (2 - d)
        apart = square > 0
        sine = xp.sqrt(where(xp, apart, square, 0.0))
        turn = where(xp, apart, (1 - d) / where(xp, apart, sine, 1.0), 0.0)
        cos_m, sin_m = math.cos(self.margin), math.sin(self.margin)
        return (1 - d) * cos_m + sine * sin_m, turn * sin_m - cos_m
