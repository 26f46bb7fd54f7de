"""InfoNCE, and what softmax losses share: a positive must stand out among the negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, sigmoid, softplus, times, where
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import positive_pool, positives_or_one, share_of
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Raise unless the temperature is positive."""
    if not 0 < temperature < float("inf"):
        raise InputError(f"expected {name} > 0, got {temperature}; typical values are 0.05 to 0.5")


@dataclass(frozen=True)
class InfoNCELoss(PairLoss):
    r"""InfoNCE: each positive against the anchor's negatives. NT-Xent with :meth:`views`, CLIP with :meth:`aligned`.

    .. math::
        \ell_i = \frac{1}{|P_i|} \sum_{p \in P_i}
        -\log \frac{e^{s_{ip} / \tau}}{e^{s_{ip} / \tau} + \sum_{n \in N_i} e^{s_{in} / \tau}}

    and the mean over anchors that have a positive and a negative. Other positives stay out of the denominator; with
    one positive each nothing hinges on that. The other NT-Xent, all others in it, is :class:`SupConLoss`.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        measure: A similarity.
        by_pair: Mean over the positive pairs instead (other libraries' NT-Xent): an anchor counts as often as it has
            positives. Classes of one size: the same.

    Raises:
        InputError: A temperature that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> z2 = np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> float(nf.InfoNCELoss(temperature=0.5).views(z1, z2).round(4))
        0.8707

    Memory: a strip of the table.

    References:
        van den Oord et al. 2018, eq. (4) (arXiv 1807.03748); Chen et al., "SimCLR", ICML 2020, eq. (1);
        Radford et al., "CLIP", ICML 2021, fig. 3.
    """

    temperature: float = 0.1
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)
    by_pair: bool = False

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One log-odds term a positive."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides)

    @property
    def linear(self) -> float:
        """One over the temperature."""
        return 1 / self.temperature

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The logit."""
        return logit(s, self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """Each positive alone against the negatives."""
        return one_positive(xp, positive, pool, share_of(pair, self.by_pair), self.temperature)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """1 where the anchor has a positive and a negative; with ``by_pair`` each positive is a term."""
        return positives_or_one(xp, pair, weight, self.by_pair)


def logit(s: Array, temperature: float) -> tuple[Array, float]:
    """``s / τ`` in place, and its slope."""
    s *= 1 / temperature
    return s, 1 / temperature


def with_positives(xp: Namespace, z: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array, Array]:
    """Log-sum-exp over the listed positives and each one's share in it; what the pool adds to it, and its share then.

    Apart, so that where the negatives hardly count a loss of 1e-15 and its gradient keep their digits.
    """
    own, among = positive_pool(xp, z, pair)
    own = where(xp, own != -float("inf"), own, 0.0)
    odds = pool - own
    return own, among, softplus(xp, odds), sigmoid(xp, odds)


def one_positive(
    xp: Namespace, positive: Array, pool: Array, share: Array, temperature: float
) -> tuple[Array, Array, Array]:
    """Each positive alone against the anchor's negatives: softplus(pool − logit), as often as its share."""
    odds = pool - positive / temperature
    loss = xp.sum(times(xp, share, softplus(xp, odds)), axis=1)
    missing = times(xp, share, sigmoid(xp, odds))
    return loss, xp.sum(missing, axis=1, keepdims=True), -missing / temperature
