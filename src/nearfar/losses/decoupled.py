"""Decoupled contrastive loss: no positive in the denominator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, exp_sum
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Engine
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import given_pairs
from nearfar.losses.pools import has_both
from nearfar.losses.softmax import check_temperature, logit
from nearfar.losses.supcon import mean_of
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair


@dataclass(frozen=True)
class DecoupledContrastiveLoss(PairLoss):
    r"""Decoupled contrastive loss, DCL, and its weighted form DCLW (Yeh 2022).

    .. math::
        \ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i} w_{ip} \, s_{ip} / \tau + \log \sum_{n \in N_i} e^{s_{in} / \tau}

    and the mean over anchors that have a positive and a negative; it can be negative. :math:`w = 1`: SupCon whose
    denominator holds the negatives only. With ``sigma`` (two views only)

    .. math::
        w_{ip} = 2 - \frac{e^{s_{ip} / \sigma}}{\operatorname{mean}_j e^{s_{jp(j)} / \sigma}}

    is taken as a constant by the gradient: dissimilar views weigh more.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        measure: A similarity.
        sigma: :math:`\sigma > 0` of the weights, in the unit of the similarity (0.5 in the paper); None: all are 1.

    Raises:
        InputError: A temperature or sigma that is not positive, sigma in a form other than two views, or a distance
            as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> z2 = np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> float(nf.DecoupledContrastiveLoss(temperature=0.5).views(z1, z2).round(4))
        0.2899

    Memory: a strip of the table. lightly before 1.5.21 added the log-sum-exps over the two views' negatives, where the
    paper and this loss have one over all of them.

    Reference:
        Yeh et al., "Decoupled Contrastive Learning", ECCV 2022. arXiv 2110.06848
    """

    temperature: float = 0.1
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)
    sigma: float | None = None

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature and sigma."""
        check_temperature(self.temperature)
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise InputError(f"expected a finite sigma > 0, got {self.sigma}; 0.5 in the paper, None for no weights")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the negatives minus the mean positive."""
        if self.sigma is not None:
            raise InputError("expected two views, whose weights sigma makes, got another form; call loss.views(z1, z2)")
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles."""
        return pooled_tiles(self, xp, bound, sides) if self.sigma is None else None

    @property
    def linear(self) -> float:
        """One over the temperature."""
        return 1 / self.temperature

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The logit."""
        return logit(s, self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The mean positive against the pool."""
        mean, share = mean_of(xp, positive / self.temperature, pair, "out")
        return pool - mean, xp.ones_like(pool), -share / self.temperature

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)

    def views(self, *views: Array, engine: Engine = "auto", group: Any = None) -> Array:
        """As of :class:`PairLoss`; with ``sigma`` of two views, without a group."""
        if self.sigma is None:
            return super().views(*views, engine=engine, group=group)
        if len(views) != 2:
            raise ShapeError(f"expected two views with sigma, got {len(views)}; leave sigma out for more")
        if group is not None:
            raise InputError("expected no group with sigma, whose mean is over one batch, got one; leave either out")
        value = replace(self, sigma=None).views(*views, engine=engine)
        return value + _Emphasis(self.temperature, self.measure, self.sigma).of(*views)


@dataclass(frozen=True)
class _Emphasis(PairLoss):
    """What the weights of DCLW add: the mean over pairs of (1 − w) s / τ, all pairs in one column."""

    temperature: float
    measure: Similarity
    sigma: float

    kind: ClassVar[str] = "similarity"

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """The weights are held constant."""
        _, share, total = exp_sum(xp, xp.reshape(s, (1, -1)) / self.sigma)
        weight = (s.shape[0] * xp.reshape(share / total, s.shape) - 1) / self.temperature
        return weight * s, weight

    def of(self, left: Array, right: Array) -> Array:
        """The value of two views."""
        return self._evaluate(lambda: given_pairs(left, right, [1] * left.shape[0]), "auto")
