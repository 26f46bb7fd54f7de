"""Chopra's loss: a square that pulls like pairs together, an exponential that pushes unlike pairs apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, exponential
from nearfar._errors import InputError
from nearfar.engine import Engine
from nearfar.engine.half_tiles import ApartTiles, apart_tiles
from nearfar.engine.rules import apart
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import given_measures, given_pairs
from nearfar.measures import Distance, Manhattan
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

INF = float("inf")


@dataclass(frozen=True)
class ChopraLoss(PairLoss):
    r"""The energy loss of the first deep Siamese face verifier (Chopra 2005).

    .. math::
        \ell = y \, \frac{2}{Q} E^2 + (1 - y) \, 2 Q \, e^{-2.77 E / Q}

    with :math:`E` the distance and :math:`y = 1` for similar pairs; the mean over all pairs. Unlike pairs never rest,
    as they do beyond the margin of :class:`~nearfar.ContrastiveLoss`.

    Args:
        bound: :math:`Q > 0`, the largest that the distance can be; the paper gives no number. For features between 0
            and 1 under ``Manhattan()`` it is their count, for ``CosineDistance()`` it is 2.
        decay: The paper's 2.77.
        measure: A distance; the paper's is the L1 norm of the difference.

    Raises:
        InputError: A bound or a decay that is not positive, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> left, right = np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([[0.3, 0.4], [1.0, 1.0]])
        >>> loss = nf.ChopraLoss(bound=2.0)
        >>> float(loss.pairs(left, right, np.array([1, 0])).round(4))  # (0.7² + 4 · exp(-2.77)) / 2
        0.3703

    Memory: a strip of the table.

    Reference:
        Chopra, Hadsell, LeCun, "Learning a Similarity Metric Discriminatively, with Application to Face
        Verification", CVPR 2005; there label 0 means similar.
    """

    bound: float = 1.0
    decay: float = 2.77
    measure: Distance = Manhattan()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    reach: ClassVar[float] = INF

    def check(self) -> None:
        """Bound and decay."""
        for name in ("bound", "decay"):
            if not 0 < getattr(self, name) < INF:
                raise InputError(f"expected a finite {name} > 0, got {getattr(self, name)}; the paper's decay is 2.77")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's pairs."""
        return apart(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> ApartTiles | None:
        """Half tiles."""
        return apart_tiles(self, xp, bound, sides)

    def factors_of(self, xp: Namespace, pair: Pair, like: Array) -> tuple[float, float]:
        """2 / Q and 2 Q."""
        return 2 / self.bound, 2 * self.bound

    def positive(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """The square."""
        return s * s, 2 * s

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """The exponential."""
        rate = -self.decay / self.bound
        s *= rate
        value = exponential(xp, s)
        return value, rate * value

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each pair is a term."""
        return pair.positive_count + pair.negative_count

    def pairs(self, left: Array, right: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The mean loss of given pairs, the form of a Siamese network; arguments as of ``ContrastiveLoss.pairs``."""
        return self._evaluate(lambda: given_pairs(left, right, same), engine, group)

    def distances(self, distance: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The mean loss of pairs whose distance is known; arguments as of ``ContrastiveLoss.distances``."""
        return self._evaluate(lambda: given_measures("distance", distance, same), engine, group)
