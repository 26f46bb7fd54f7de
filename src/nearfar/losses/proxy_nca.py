"""NCA against proxies: learned points that stand for the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, times
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.class_rows import class_rows
from nearfar.losses.entropy import own_among_all
from nearfar.losses.pools import has_both
from nearfar.losses.softmax import check_temperature, logit
from nearfar.measures import CosineDistance, Distance
from nearfar.relations import Pair


@dataclass(frozen=True)
class ProxyNCALoss(PairLoss):
    r"""ProxyNCA (Movshovitz-Attias 2017): the own proxy against the others; ProxyNCA++ with it among them.

    .. math::
        \ell_i = d_{i y_i} / \tau + \log \sum_{c \neq y_i} e^{-d_{ic} / \tau}

    which can be negative, since the own proxy is left out of the sum. With ``include_own`` the sum runs over all
    proxies, and the loss is cross-entropy of the logits −d / τ: ProxyNCA++ (Teh 2020) is
    ``ProxyNCALoss(temperature=1 / 18, include_own=True)``.

    ``loss(embeddings, labels, class_weights=W)`` takes one proxy a class; an item whose label is no class counts for
    nothing. With several positives (proxies as references with labels) the first term is their mean.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the distance. 1/2 on the cosine distance is 1 on the squared
            distance of unit vectors, the paper's; so is 1/18 the 1/9 of ProxyNCA++.
        include_own: Whether the own proxy is in the sum, as in ProxyNCA++ and pytorch-metric-learning's ProxyNCA.
        measure: A distance.

    Raises:
        InputError: A temperature that is not positive, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, proxies = np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(nf.ProxyNCALoss()(x, [0, 1], class_weights=proxies).round(4))  # 0.4 - 0.8
        -0.4

    Memory: a strip of the table.

    References:
        Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017 (arXiv 1703.07464);
        Teh, DeVries, Taylor, "ProxyNCA++", ECCV 2020 (arXiv 2004.01113).
    """

    temperature: float = 0.5
    include_own: bool = False
    measure: Distance = CosineDistance()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    has_class_weights: ClassVar[bool] = True
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}
    _table = class_rows

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the other proxies (or all) minus the own logit."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """Minus the distance over the temperature."""
        return logit(s, -self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own proxy against the pool, or among all."""
        z = positive / -self.temperature
        if self.include_own:
            loss, by_pool, by_logit = own_among_all(xp, z, pool, pair)
            return loss, by_pool, by_logit / -self.temperature
        loss = pool - xp.sum(times(xp, pair.share, z), axis=1, keepdims=True)
        return loss, xp.ones_like(pool), pair.share / self.temperature

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """1 where the anchor has an own proxy, and others if only they are in the sum."""
        return super().terms(xp, pair, weight) if self.include_own else has_both(xp, pair, weight)


__all__ = ["ProxyNCALoss"]
