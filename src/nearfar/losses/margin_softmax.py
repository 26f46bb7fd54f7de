"""Softmax over classes with a margin: the own class must win by an angle, or by a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace
from nearfar._errors import InputError
from nearfar.engine.rules import pooled
from nearfar.losses.angles import check_angle, cosine_logit, turned
from nearfar.losses.base import PairLoss
from nearfar.losses.class_rows import class_rows
from nearfar.losses.entropy import own_among_all
from nearfar.losses.softmax import check_temperature, logit
from nearfar.measures import Cosine, CosineDistance, Similarity
from nearfar.relations import Pair


@dataclass(frozen=True)
class ArcFaceLoss(PairLoss):
    r"""ArcFace (Deng 2019): cross-entropy over classes, with a margin on the angle to the own class.

    With :math:`\theta_c` the angle between an embedding and the weights of class c,

    .. math::
        \ell_i = \log \Big( e^{\psi(\theta_{y_i}) / \tau} + \sum_{c \neq y_i} e^{\cos \theta_c / \tau} \Big)
        - \psi(\theta_{y_i}) / \tau, \qquad
        \psi(\theta) = \begin{cases}
        \cos(\theta + m) & \theta < \pi - m \\ \cos \theta - m \sin m & \text{else} \end{cases}

    ``loss(embeddings, labels, class_weights=W)`` takes one row of ``W`` a class; an item whose label is no class
    counts for nothing. Without class weights the references (or the batch itself) take their place, as in
    :class:`~nearfar.SupConLoss`, with the margin on every positive.

    Args:
        margin: :math:`m` in radians, 0 ≤ m < π.
        temperature: :math:`\tau > 0`; one over the paper's scale s.
        measure: The cosine distance :math:`d = 1 - \cos \theta`, from which :math:`\sin \theta = \sqrt{d (2 - d)}` is
            right for small angles too; no other measure has an angle.

    Raises:
        InputError: A margin outside its range, a temperature that is not positive, or another measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, weights = np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(nf.ArcFaceLoss(margin=0.5, temperature=0.5)(x, [0, 1], class_weights=weights).round(4))
        0.8959

    At angle 0, where cos(θ + m) has a corner, the gradient is that of cos θ · cos m. At π − m the loss has a step (of
    1 − cos m − m sin m, over τ, in the logit), as in the authors' code. pytorch-metric-learning gives the margin in
    degrees.

    Memory: a strip of the table.

    Reference:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, eq. (3).
        arXiv 1801.07698
    """

    margin: float = 0.5
    temperature: float = 1 / 64
    measure: CosineDistance = CosineDistance()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    has_class_weights: ClassVar[bool] = True
    _table = class_rows

    def check(self) -> None:
        """Temperature, margin and measure."""
        check_temperature(self.temperature)
        check_angle(self, self.margin)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes, the own with its margin, minus the own."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The cosine's logit."""
        return cosine_logit(s, self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class, with its margin, among all."""
        target, slope = turned(xp, positive, self.margin)
        loss, by_pool, by_logit = own_among_all(xp, target / self.temperature, pool, pair)
        return loss, by_pool, by_logit * slope / self.temperature


@dataclass(frozen=True)
class CosFaceLoss(PairLoss):
    r"""CosFace (Wang 2018), also AM-Softmax: cross-entropy over classes, with a margin on the own class's cosine.

    .. math::
        \ell_i = \log \Big( e^{(s_{i y_i} - m) / \tau} + \sum_{c \neq y_i} e^{s_{ic} / \tau} \Big)
        - (s_{i y_i} - m) / \tau

    ``loss(embeddings, labels, class_weights=W)`` takes one row of ``W`` a class; an item whose label is no class
    counts for nothing. Without class weights the references (or the batch itself) take their place, with the margin
    on every positive. At m = 0 it is the normalised softmax, ``CrossEntropyLoss(temperature, measure=Cosine())``.

    Args:
        margin: :math:`m \geq 0`, in the unit of the similarity.
        temperature: :math:`\tau > 0`; one over the paper's scale s.
        measure: A similarity; the cosine in the paper.

    Raises:
        InputError: A margin below 0, a temperature that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, weights = np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(nf.CosFaceLoss(margin=0.2, temperature=0.5)(x, [0, 1], class_weights=weights).round(4))
        0.6931

    Memory: a strip of the table.

    References:
        Wang H. et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018 (arXiv 1801.09414);
        Wang F. et al., "Additive Margin Softmax for Face Verification", 2018 (arXiv 1801.05599; scale 30).
    """

    margin: float = 0.35
    temperature: float = 1 / 64
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    has_class_weights: ClassVar[bool] = True
    _table = class_rows

    def check(self) -> None:
        """Temperature and margin."""
        check_temperature(self.temperature)
        if not 0 <= self.margin < math.inf:
            raise InputError(f"expected margin >= 0, got {self.margin}; 0.35 in the paper")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes, the own with its margin, minus the own."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The logit."""
        return logit(s, self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class, with its margin, among all."""
        loss, by_pool, by_logit = own_among_all(xp, (positive - self.margin) / self.temperature, pool, pair)
        return loss, by_pool, by_logit / self.temperature
