"""Supervised contrastive loss in its two forms, with its three denominators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, sigmoid, softplus, times, where
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_both, positive_pool
from nearfar.losses.softmax import check_temperature, logit, with_positives
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

FORMS, DENOMINATORS = ("out", "in"), ("all", "one", "negatives")


@dataclass(frozen=True)
class SupConLoss(PairLoss):
    r"""Supervised contrastive loss (Khosla 2020).

    With :math:`P_i` the positives of anchor i, :math:`N_i` its negatives and :math:`A_i` both,

    .. math::
        \ell_i^{out} = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_{ip} / \tau}}{D_{ip}}, \quad
        \ell_i^{in} = -\log \frac{1}{|P_i|} \sum_{p \in P_i} \frac{e^{s_{ip} / \tau}}{D_{ip}}, \quad
        D_{ip} = \sum_{a \in A_i} e^{s_{ia} / \tau}

    and the mean over anchors that have a positive. With one positive each it is NT-Xent. Other denominators are
    :math:`D_{ip} = e^{s_{ip} / \tau} + \sum_{n \in N_i} e^{s_{in} / \tau}`, one positive at a time (the ``"out"`` form
    is then :class:`InfoNCELoss`), and the sum over :math:`N_i` alone (then :class:`DecoupledContrastiveLoss`, which can
    be negative); with them the mean is over anchors that have a positive and a negative.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity. The authors' code multiplies the loss by
            τ / 0.07; here it does not, as in their eq. (2).
        measure: A similarity.
        form: ``"out"``, positives averaged outside the logarithm, which the paper recommends, or ``"in"``.
        denominator: ``"all"``, ``"one"`` or ``"negatives"``.

    Raises:
        InputError: A temperature that is not positive, another form or denominator, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.SupConLoss(temperature=0.5)(x, [0, 0, 1, 1]).round(4))
        0.8707

    Memory: a strip of the table.

    Reference:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. (2), (3). arXiv 2004.11362
    """

    temperature: float = 0.1
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)
    form: str = "out"
    denominator: str = "all"

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature, form and denominator."""
        check_temperature(self.temperature)
        if self.form not in FORMS:
            raise InputError(f"expected form to be one of {FORMS}, got {self.form!r}; the paper recommends 'out'")
        if self.denominator not in DENOMINATORS:
            raise InputError(
                f"expected denominator to be one of {DENOMINATORS}, got {self.denominator!r}; the paper's is 'all'"
            )

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Log of the denominator minus the positives; weight: probability minus share."""
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
        """The denominator is the pool of the negatives and all positives, or one of them, or none."""
        z = positive / self.temperature
        if self.denominator == "one":
            loss, by_pool, by_logit = _one_at_a_time(xp, z, pool, pair, self.form)
            return loss, by_pool, by_logit / self.temperature
        mean, share = mean_of(xp, z, pair, self.form)
        if self.denominator == "negatives":
            return pool - mean, xp.ones_like(pool), -share / self.temperature
        own, among, added, others = with_positives(xp, z, pool, pair)
        return added + (own - mean), others, ((among - share) - among * others) / self.temperature

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive, and a negative if the denominator needs one."""
        return super().terms(xp, pair, weight) if self.denominator == "all" else has_both(xp, pair, weight)


def mean_of(xp: Namespace, z: Array, pair: Pair, form: str) -> tuple[Array, Array]:
    """The mean of the listed logits, or the log of the mean of their exponentials; and each one's share in it."""
    if form == "out":
        return xp.sum(times(xp, pair.share, z), axis=1, keepdims=True), pair.share
    own, share = positive_pool(xp, z, pair)
    return own - xp.log(where(xp, pair.positive_count > 0, pair.positive_count, 1.0)), share


def _one_at_a_time(xp: Namespace, z: Array, pool: Array, pair: Pair, form: str) -> tuple[Array, Array, Array]:
    """Each positive's own log-probability against the negatives, averaged in either form."""
    odds = pool - z
    logs = -softplus(xp, odds)
    mean, share = mean_of(xp, logs, pair, form)
    if form == "in":
        # Where all probabilities are near 1, from what they lack of it.
        lack = xp.sum(times(xp, pair.share, xp.expm1(logs)), axis=1, keepdims=True)
        near = lack > -0.5
        mean = xp.where(near, xp.log1p(where(xp, near, lack, 0.0)), mean)
    missing = times(xp, share, sigmoid(xp, odds))
    return -mean, xp.sum(missing, axis=1, keepdims=True), -missing
