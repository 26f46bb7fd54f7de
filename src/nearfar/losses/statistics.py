"""Losses of feature statistics: Barlow Twins and VICReg. No pairs: the mean, variance and correlation of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, arange, relu, where
from nearfar._errors import InputError
from nearfar.losses.features import FeatureLoss, centred, expect_weights, total
from nearfar.measures.base import normalise, unnormalise


@dataclass(frozen=True)
class BarlowTwinsLoss(FeatureLoss):
    r"""Barlow Twins (Zbontar 2021): the correlation matrix of two views' features, near the identity.

    With :math:`C_{ij}` the correlation over the batch of feature i of the first view with feature j of the second,

    .. math::
        \ell = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

    A feature that is constant over the batch correlates with nothing: C is 0 there, with gradient 0. Fewer than two
    items: the value is 0.

    Args:
        redundancy: :math:`\lambda \ge 0`, the weight of the redundancy reduction term.

    Raises:
        InputError: A negative weight or one that is not finite.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> loss = nf.BarlowTwinsLoss()
        >>> float(loss(z, z).round(4)), float(loss(z, -z).round(4))
        (0.0, 8.0)

    The authors' code adds 1e-5 to each variance (batch normalisation); here nothing is added.

    Memory: features × features.

    Reference:
        Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021, section 2.
        arXiv 2103.03230
    """

    redundancy: float = 5e-3

    least: ClassVar[int] = 2

    def check(self) -> None:
        """Weight."""
        expect_weights(self, "redundancy")

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """Features as unit rows: their products are correlations."""
        (a, norm_a), (b, norm_b) = (normalise(xp, centred(xp, z).T) for z in views)
        lack = 1 - xp.sum(a * b, axis=1, keepdims=True)
        off = off_diagonal(xp, a @ b.T)
        value = total(xp, lack * lack) + self.redundancy * total(xp, off * off)
        off = 2 * self.redundancy * off
        by_a, by_b = off @ b - 2 * lack * b, off.T @ a - 2 * lack * a
        sides = ((a, norm_a, by_a), (b, norm_b, by_b))
        # Sums of deviations, whose mean is 0: nothing is left to take off.
        return value, tuple(unnormalise(xp, *side).T for side in sides)


@dataclass(frozen=True)
class VICRegLoss(FeatureLoss):
    r"""VICReg (Bardes 2022): two views alike (invariance), features that vary (variance) and differ (covariance).

    With n items, d features, and over one view :math:`S_j = \sqrt{\mathrm{Var}_j + \epsilon}` and the covariance matrix
    Cov, both with divisor n − 1,

    .. math::
        \ell = \frac{\lambda}{n d} \sum_i \|z_i - z_i'\|^2
        + \sum_{\text{views}} \Big( \frac{\mu}{d} \sum_j \max(\gamma - S_j, 0)
        + \frac{\nu}{d} \sum_{j \ne k} \mathrm{Cov}_{jk}^2 \Big)

    Args:
        invariance: :math:`\lambda \ge 0`.
        variance: :math:`\mu \ge 0`.
        covariance: :math:`\nu \ge 0`.
        target: :math:`\gamma`, the standard deviation beyond which a feature rests.
        epsilon: :math:`\epsilon > 0`, under the root.

    Raises:
        InputError: A negative weight, an epsilon that is not positive, a number that is not finite.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
        >>> float(nf.VICRegLoss()(z, z)), float(nf.VICRegLoss()(z, z + 1.0))
        (0.0, 25.0)

    The authors' code and pytorch-metric-learning halve the variance term: ``VICRegLoss(variance=12.5)``. Fewer than two
    items have no variance: only the invariance term is left.

    Memory: features × features.

    Reference:
        Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
        ICLR 2022, section 4; the mean over features in the first term is that of the authors' code. arXiv 2105.04906
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    target: float = 1.0
    epsilon: float = 1e-4

    def check(self) -> None:
        """Weights, target and epsilon."""
        expect_weights(self, "invariance", "variance", "covariance", "target")
        if not 0 < self.epsilon < float("inf"):
            raise InputError(f"expected a finite epsilon > 0, got {self.epsilon}; the paper's is 1e-4")

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """The three terms."""
        gap, share = views[0] - views[1], self.invariance / (views[0].shape[0] * views[0].shape[1])
        (one, by_one), (two, by_two) = (self._spread(xp, z) for z in views)
        pull = 2 * share * gap
        return share * total(xp, gap * gap) + one + two, (by_one + pull, by_two - pull)

    def _spread(self, xp: Namespace, z: Array) -> tuple[Array, Array]:
        """Variance and covariance terms of one view."""
        n, d = z.shape
        if n < 2:
            return total(xp, z[:0]), xp.zeros_like(z)
        c = centred(xp, z)
        variances = xp.astype(xp.sum(c * c, axis=0, dtype=xp.float64) / (n - 1), c.dtype)
        deviation = xp.sqrt(variances + self.epsilon)
        lack = relu(xp, self.target - deviation)
        off = off_diagonal(xp, c.T @ c / (n - 1))
        value = self.variance / d * total(xp, lack) + self.covariance / d * total(xp, off * off)
        short = where(xp, lack > 0, -self.variance / deviation, 0.0)
        return value, (c @ (4 * self.covariance * off) + short * c) / (d * (n - 1))


def off_diagonal(xp: Namespace, square: Array) -> Array:
    """A square matrix with 0 on its diagonal."""
    places = arange(xp, square.shape[0], square)
    return where(xp, places[:, None] != places[None, :], square, 0.0)
