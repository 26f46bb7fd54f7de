"""Losses of where features lie on the unit sphere: alignment, uniformity, KoLeo, BYOL's regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, add_rows, arange, at_least, exponential, row_max, where
from nearfar._errors import InputError
from nearfar.losses.features import FeatureLoss, centred, difference, from_sphere, on_sphere, total
from nearfar.measures import Euclidean, SquaredEuclidean
from nearfar.measures.base import normalise

INF = float("inf")


@dataclass(frozen=True)
class AlignmentLoss(FeatureLoss):
    r"""Alignment (Wang 2020): the mean distance between two views of an item, to a power.

    .. math::
        \ell = \frac1n \sum_i \|z_i - z_i'\|^\alpha

    Args:
        power: :math:`\alpha \ge 1`.
        unit: Take unit rows first, as the paper's features are; a zero row stays zero, with gradient 0.

    Raises:
        InputError: A power below 1.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> float(nf.AlignmentLoss()(np.array([[3.0, 0.0]]), np.array([[0.0, 2.0]])).round(4))
        2.0

    Memory: that of the views.

    Reference:
        Wang, Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere", ICML 2020, section 4. arXiv 2005.10242
    """

    power: float = 2.0
    unit: bool = True

    def check(self) -> None:
        """Power."""
        if not 1 <= self.power < INF:
            raise InputError(f"expected a finite power >= 1, got {self.power}; the paper uses 1 and 2")

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """Along the differences."""
        (a, norm_a), (b, norm_b) = (on_sphere(xp, z, self.unit) for z in views)
        direction, gap = normalise(xp, difference(xp, (views[0], a, norm_a), (views[1], b, norm_b)))
        pull = self.power / a.shape[0] * gap ** (self.power - 1) * direction
        value = total(xp, gap**self.power) / a.shape[0]
        return value, (from_sphere(xp, a, norm_a, pull * 1), from_sphere(xp, b, norm_b, -pull))


@dataclass(frozen=True)
class UniformityLoss(FeatureLoss):
    r"""Uniformity (Wang 2020): the log of the mean Gaussian potential over all pairs of a batch.

    .. math::
        \ell = \log \frac{1}{n (n - 1)} \sum_{i \ne j} e^{-t \|z_i - z_j\|^2}

    Called with one batch; ``views(z1, z2)`` is the mean of both, as in the paper.

    Args:
        t: :math:`t > 0`.
        unit: Take unit rows first, as the paper's features are; a zero row stays zero, with gradient 0.

    Raises:
        InputError: A t that is not positive.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z = np.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [0.0, -1.0]])
        >>> float(nf.UniformityLoss()(z).round(4))
        -4.3963

    Fewer than two items: the value is 0. lightly's default is t = 1.

    Memory: a strip of the table of distances.

    Reference:
        Wang, Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere", ICML 2020, section 4. arXiv 2005.10242
    """

    t: float = 2.0
    unit: bool = True

    batches: ClassVar[int] = 1
    least: ClassVar[int] = 2

    def check(self) -> None:
        """Only t."""
        if not 0 < self.t < INF:
            raise InputError(f"expected a finite t > 0, got {self.t}; the paper's is 2")

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """Row by row, each with a shift of its own for its exponentials."""
        rows, norm = on_sphere(xp, views[0], self.unit)
        n, side = rows.shape[0], SquaredEuclidean().prepare(xp, centred(xp, rows), None)

        def potentials(table: Array, own: Array) -> tuple[Array, ...]:
            z = apart(xp, -self.t * table, own, -INF)
            top = row_max(xp, z)
            weight = exponential(xp, z - top)
            return top[:, 0], xp.sum(weight, axis=1, dtype=xp.float64), weight @ side.rows

        tops, sums, among = self.by_strips(xp, SquaredEuclidean(), side, potentials)
        top = xp.max(tops)
        scales = xp.astype(xp.exp(tops - top), xp.float64)
        mass = xp.sum(scales * sums)
        value = xp.log(mass) + xp.astype(top, xp.float64) - xp.log(xp.ones_like(mass) * n * (n - 1))
        force = xp.astype(sums, among.dtype)[:, None] * side.rows - among
        force = force * xp.astype(-4 * self.t * scales / mass, force.dtype)[:, None]
        return value, (from_sphere(xp, rows, norm, force),)


@dataclass(frozen=True)
class KoLeoLoss(FeatureLoss):
    r"""KoLeo (Sablayrolles 2019): Kozachenko and Leonenko's entropy, from the distance to the nearest other item.

    .. math::
        \ell = -\frac1n \sum_i \log \max\big(\min_{j \ne i} \|z_i - z_j\|, \epsilon\big)

    Items at the same place, or nearer than ε, stand at ε, with gradient 0.

    Args:
        unit: Take unit rows first, as the paper's features are; a zero row stays zero, with gradient 0.
        floor: :math:`\epsilon > 0`. The paper has none: there two equal items make the loss infinite.

    Raises:
        InputError: A floor that is not positive.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z = np.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
        >>> float(nf.KoLeoLoss()(z).round(4))  # every nearest distance is √2
        -0.3466

    Called with one batch; ``views`` is the mean over the views. Fewer than two items: the value is 0. Of nearest items
    at one distance the first counts.

    Memory: a strip of the table of distances.

    Reference:
        Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019, section 3. arXiv 1806.03198
    """

    unit: bool = True
    floor: float = 1e-8

    batches: ClassVar[int] = 1
    least: ClassVar[int] = 2

    def check(self) -> None:
        """Floor."""
        if not 0 < self.floor < INF:
            raise InputError(f"expected a finite floor > 0, got {self.floor}; give the least distance that counts")

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """A table finds the nearest item; the difference itself gives distance and direction."""
        rows, norm = on_sphere(xp, views[0], self.unit)
        n, side = rows.shape[0], Euclidean().prepare(xp, centred(xp, rows), None)

        def nearest(table: Array, own: Array) -> tuple[Array, ...]:
            return (xp.argmin(apart(xp, table, own, INF), axis=1),)

        (other,) = self.by_strips(xp, Euclidean(), side, nearest)
        own, norms = views[0], norm if norm is None else norm[other]
        direction, gap = normalise(xp, difference(xp, (own, rows, norm), (own[other], rows[other], norms)))
        value = -total(xp, xp.log(at_least(xp, gap, self.floor))) / n
        near = gap > self.floor
        pull = where(xp, near, -direction / (n * where(xp, near, gap, 1.0)), 0.0)
        return value, (from_sphere(xp, rows, norm, add_rows(pull * 1, other, -pull)),)


@dataclass(frozen=True)
class BYOLLoss(FeatureLoss):
    r"""BYOL's regression (Grill 2020): a prediction turned towards a target that is held constant.

    .. math::
        \ell = \frac1n \sum_i \Big(2 - 2 \frac{\langle p_i, z_i \rangle}{\|p_i\| \|z_i\|}\Big)

    Called with the prediction and the target, in this order; only the prediction has a gradient. Symmetric use, with
    two views and a predictor, is the mean of ``loss(p1, z2)`` and ``loss(p2, z1)`` (BYOL adds them). SimSiam's negative
    cosine is ``loss / 2 − 1``: half the gradient. A zero row has cosine 0 with everything, with gradient 0.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> z1, z2 = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])
        >>> loss = nf.BYOLLoss()
        >>> float(loss(z1, z2))
        1.0
        >>> simsiam = (loss(z1, z2) + loss(z2, z1)) / 4 - 1  # mean of both negative cosines
        >>> float(simsiam)
        -0.5

    Memory: that of the views.

    Reference:
        Grill et al., "Bootstrap your own latent", NeurIPS 2020, section 3; Chen, He, "Exploring Simple Siamese
        Representation Learning", CVPR 2021, section 3. arXiv 2006.07733, 2011.10566
    """

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """The squared distance of unit rows, which small angles do not cancel in."""
        (p, norm_p), (z, norm_z) = (on_sphere(xp, view, True) for view in views)
        gap = difference(xp, (views[0], p, norm_p), (views[1], z, norm_z))
        void = (norm_p == 0) | (norm_z == 0)
        cost = where(xp, ~void, xp.sum(gap * gap, axis=1, keepdims=True), 2.0)
        return total(xp, cost) / p.shape[0], (from_sphere(xp, p, norm_p, 2 / p.shape[0] * gap), None)


def apart(xp: Namespace, table: Array, own: Array, otherwise: float) -> Array:
    """A strip of a table with a number where the items ``own`` meet themselves."""
    return where(xp, own[:, None] != arange(xp, table.shape[1], table)[None, :], table, otherwise)
