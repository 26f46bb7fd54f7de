"""Softmax over classes with the angle to the own class multiplied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, where
from nearfar._errors import InputError
from nearfar.engine.rules import pooled
from nearfar.losses.angles import angle_of, cosine_logit, expect_angles
from nearfar.losses.base import PairLoss
from nearfar.losses.class_rows import class_rows
from nearfar.losses.entropy import own_among_all
from nearfar.losses.softmax import check_temperature
from nearfar.measures import CosineDistance
from nearfar.relations import Pair


@dataclass(frozen=True)
class SphereFaceLoss(PairLoss):
    r"""SphereFace (Liu 2017) at a fixed scale: cross-entropy over classes, with the angle to the own class multiplied.

    With :math:`\theta_c` the angle between an embedding and the weights of class c,

    .. math::
        \ell_i = \log \Big( e^{\psi(\theta_{y_i}) / \tau} + \sum_{c \neq y_i} e^{\cos \theta_c / \tau} \Big)
        - \psi(\theta_{y_i}) / \tau, \qquad
        \psi(\theta) = (-1)^k \cos(m \theta) - 2 k, \quad k = \lfloor m \theta / \pi \rfloor

    :math:`\psi` falls all the way from angle 0 to π, so the margin need not be a whole number. The paper of 2017 has
    the embedding's own norm where :math:`1 / \tau` stands here; with a fixed scale, as in the authors' paper of 2022,
    the loss is one of angles. Without class weights the references (or the batch itself) take their place, with the
    margin on every positive.

    Args:
        margin: :math:`m \geq 1`, how many times the angle counts.
        temperature: :math:`\tau > 0`, one over the scale.
        measure: The cosine distance, from which small angles are right; no other measure has an angle.

    Raises:
        InputError: A margin below 1, a temperature that is not positive, or another measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, weights = np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(nf.SphereFaceLoss(margin=2, temperature=0.5)(x, [0, 1], class_weights=weights).round(4))
        1.0635

    Memory: a strip of the table.

    References:
        Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017 (arXiv 1704.08063);
        Liu et al., "SphereFace Revived: Unifying Hyperspherical Face Recognition", TPAMI 2022 (arXiv 2109.05565).
    """

    margin: float = 4.0
    temperature: float = 1 / 30
    measure: CosineDistance = CosineDistance()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    has_class_weights: ClassVar[bool] = True
    _table = class_rows

    def check(self) -> None:
        """Temperature, margin and measure."""
        check_temperature(self.temperature)
        if not 1 <= self.margin < math.inf:
            raise InputError(f"expected margin >= 1, got {self.margin}; it multiplies the angle, 4 in the paper")
        expect_angles(self)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes, the own with its margin, minus the own."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The cosine's logit."""
        return cosine_logit(s, self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class, with its margin, among all."""
        target, slope = self._multiplied(xp, positive)
        loss, by_pool, by_logit = own_among_all(xp, target / self.temperature, pool, pair)
        return loss, by_pool, by_logit * slope / self.temperature

    def _multiplied(self, xp: Namespace, d: Array) -> tuple[Array, Array]:
        """ψ and its derivative by the distance, −m |sin mθ| / sin θ; −m² where that is its limit."""
        cosine, sine = angle_of(xp, d)
        angle = xp.atan2(sine, cosine) * self.margin
        turns = xp.floor(angle / math.pi)
        value = xp.cos(angle - math.pi * turns) - 2 * turns
        there = sine > 0
        ratio = where(xp, there, xp.abs(xp.sin(angle)) / where(xp, there, sine, 1.0), self.margin)
        return value, -self.margin * ratio
