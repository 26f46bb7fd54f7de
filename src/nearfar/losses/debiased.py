"""Losses that correct for negatives that are none: debiased contrastive, and its weighing of hard negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, at_least, exp_sum, sigmoid, softplus, times, where
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_both, positive_pool
from nearfar.losses.softmax import check_temperature, logit
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

INF = float("inf")


@dataclass(frozen=True)
class DebiasedContrastiveLoss(PairLoss):
    r"""Debiased contrastive loss: negatives drawn blindly share the anchor's class now and then (Chuang 2020).

    With :math:`\pi` the chance of that, :math:`N_i` the anchor's negatives and :math:`z = s / \tau`,

    .. math::
        \ell_i = \frac{1}{|P_i|} \sum_{p \in P_i} -\log \frac{e^{z_{ip}}}{e^{z_{ip}} + |N_i| \, g_i}, \quad
        g_i = \max\Big(\frac{1}{1 - \pi} \big(\operatorname{mean}_{n \in N_i} e^{z_{in}}
        - \pi \operatorname{mean}_{p \in P_i} e^{z_{ip}}\big), \, e^{-1 / \tau}\Big)

    and the mean over anchors that have a positive and a negative. :math:`\pi = 0`: InfoNCE, on unit vectors.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        prior: :math:`\pi`, from 0 to below 1; :math:`\tau^+` in the paper.
        measure: A similarity; the floor of :math:`g` is made for one of -1 … 1.

    Raises:
        InputError: A temperature that is not positive, a prior out of range, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> z2 = np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> float(nf.DebiasedContrastiveLoss().views(z1, z2).round(4))
        0.8369

    Memory: a strip of the table.

    Reference:
        Chuang et al., "Debiased Contrastive Learning", NeurIPS 2020, section 4. arXiv 2007.00224
    """

    temperature: float = 0.5
    prior: float = 0.1
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"

    def check(self) -> None:
        """Temperature and prior."""
        check_temperature(self.temperature)
        check_prior(self.prior)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One log-odds term a positive against the corrected pool."""
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
        """Each positive alone against the pool without the anchor's own class."""
        return against_corrected(xp, positive, pool, pair, self.temperature, self.prior)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)


@dataclass(frozen=True)
class HardNegativeContrastiveLoss(PairLoss):
    r"""Contrastive loss with hard negatives, HCL: the debiased one with negatives weighed by likeness (Robinson 2021).

    :class:`DebiasedContrastiveLoss` whose mean over negatives is weighed by :math:`e^{\beta z_{in}}`:

    .. math::
        \operatorname{mean}_{n \in N_i} e^{z_{in}} \;\to\;
        \frac{\sum_{n \in N_i} e^{(1 + \beta) z_{in}}}{\sum_{n \in N_i} e^{\beta z_{in}}}

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        prior: :math:`\pi`, from 0 to below 1; :math:`\tau^+` in the paper.
        beta: :math:`\beta \ge 0`, the concentration; 0: the debiased loss.
        measure: A similarity; the floor of :math:`g` is made for one of -1 … 1.

    Raises:
        InputError: Hyper-parameters out of range, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> z2 = np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> float(nf.HardNegativeContrastiveLoss().views(z1, z2).round(4))
        0.9537

    Memory: a strip of the table. The gradient goes through the weights, as in the authors' code.

    Reference:
        Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021, section 3. arXiv 2010.04592
    """

    temperature: float = 0.5
    prior: float = 0.1
    beta: float = 1.0
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"

    def check(self) -> None:
        """Temperature, prior and concentration."""
        check_temperature(self.temperature)
        check_prior(self.prior)
        if not 0 <= self.beta < INF:
            raise InputError(f"expected a finite beta >= 0, got {self.beta}; the paper tries 0.5 to 2")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Two pools: the weighed exponentials and their weights."""
        positive = pair.take(s)
        steep, flat = (1 + self.beta) / self.temperature, self.beta / self.temperature
        above, share, total = exp_sum(xp, pair.negative_logits(s * steep))
        below, weight, whole = exp_sum(xp, pair.negative_logits(s * flat))
        some = pair.negative_count > 0
        count = xp.log(where(xp, some, pair.negative_count, 1.0))
        pool = where(xp, some, above, -INF) - where(xp, some, below, 0.0) + count
        value, by_pool, by_positive = against_corrected(xp, positive, pool, pair, self.temperature, self.prior)
        share *= by_pool * steep / at_least(xp, total, 1.0)
        weight *= by_pool * -flat / at_least(xp, whole, 1.0)
        return value, pair.add(share + weight, by_positive)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)


def check_prior(prior: float) -> None:
    """Raise unless the prior is a probability below 1."""
    if not 0 <= prior < 1:
        raise InputError(f"expected 0 <= prior < 1, got {prior}; one over the number of classes is a start")


def against_corrected(
    xp: Namespace, positive: Array, pool: Array, pair: Pair, temperature: float, prior: float
) -> tuple[Array, Array, Array]:
    """Each positive against the pool less what the prior says is of its class; derivatives by pool and positives."""
    z = positive / temperature
    own, share = positive_pool(xp, z, pair)
    own = own - xp.log(where(xp, pair.positive_count > 0, pair.positive_count, 1.0))
    number = xp.log(where(xp, pair.negative_count > 0, pair.negative_count, 1.0))
    # Logarithm of the part that is taken off; at 0 nothing would be left.
    part = own + number - pool + (math.log(prior) if prior else -INF)
    nothing = part >= 0
    part = where(xp, ~nothing, part, -1.0)
    rest = -xp.expm1(part)
    least = number - 1 / temperature
    corrected = pool + xp.log(rest) - math.log1p(-prior)
    floored = nothing | (corrected <= least)
    odds = xp.where(floored, least, corrected) - z
    loss = xp.sum(times(xp, pair.share, softplus(xp, odds)), axis=1, keepdims=True)
    missing = times(xp, pair.share, sigmoid(xp, odds))
    by_pool = where(xp, ~floored, xp.sum(missing, axis=1, keepdims=True) / rest, 0.0)
    return loss, by_pool, -(missing + times(xp, share, by_pool * xp.exp(part))) / temperature
