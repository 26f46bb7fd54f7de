"""Margin loss: like pairs inside a boundary, unlike pairs outside it, by a margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, relu, step
from nearfar._errors import InputError
from nearfar.engine.half_tiles import ApartTiles, apart_tiles
from nearfar.engine.rules import apart
from nearfar.losses.base import PairLoss
from nearfar.measures import Distance, Euclidean
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class MarginLoss(PairLoss):
    r"""Margin loss (Wu 2017).

    .. math::
        \ell = \max\big(\alpha + y (d - \beta), 0\big)

    with :math:`y = 1` for similar and −1 for dissimilar pairs; the mean over all pairs. The paper sums, over pairs that
    its distance-weighted sampling draws, and works on unit vectors: normalise them first, since ``Euclidean()`` does
    not.

    Args:
        margin: :math:`\alpha`, how far from the boundary a pair must be to rest, in the unit of the distance.
        beta: :math:`\beta`, the boundary, in the unit of the distance.
        active_only: Mean over the pairs above 0 (the authors' code; it rises while training succeeds).
        measure: A distance.

    Raises:
        InputError: A negative margin, a boundary that is not finite, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
        >>> float(nf.MarginLoss()(x, [0, 0, 1]).round(4))  # (0.2 + 1.4142 - 1.2 + 0.7675 + 0.5056) / 3
        0.5624

    Memory: a strip of the table.

    Reference:
        Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, section 4, the margin-based loss.
        arXiv 1706.07567
    """

    margin: float = 0.2
    beta: float = 1.2
    active_only: bool = False
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    learnable: ClassVar[Mapping[str, str]] = {"beta": "origin"}

    def check(self) -> None:
        """Margin and boundary."""
        if not 0 <= self.margin < float("inf"):
            raise InputError(f"expected a finite margin >= 0, got {self.margin}; give it in the unit of the distance")
        if not abs(self.beta) < float("inf"):
            raise InputError(f"expected a finite beta, got {self.beta}; give the distance that parts like from unlike")

    @property
    def in_parts(self) -> bool:
        """Not where the mean waits for the pairs above 0."""
        return not self.active_only

    @property
    def reach(self) -> float:
        """Negatives rest beyond the boundary and its margin."""
        return self.beta + self.margin

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's pairs."""
        return apart(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> ApartTiles | None:
        """Half tiles; not where the mean waits for the pairs above 0."""
        return None if self.active_only else apart_tiles(self, xp, bound, sides)

    def factors_of(self, xp: Namespace, pair: Pair, like: Array) -> tuple[float, float]:
        """Positives and negatives count alike."""
        return 1.0, 1.0

    def positive(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """What is too far."""
        value = relu(xp, s + (self.margin - self.beta))
        return value, step(xp, xp.asarray(value, copy=True))

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """What is missing to the reach."""
        s *= -1
        s += self.reach
        value = relu(xp, s)
        slope = step(xp, xp.asarray(value, copy=True))
        slope *= -1
        return value, slope

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each pair is a term; with ``active_only`` each that weighs."""
        if self.active_only:
            return xp.sum(xp.abs(weight), axis=1)
        return pair.positive_count + pair.negative_count
