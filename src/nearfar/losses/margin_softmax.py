"""Softmax over classes with a margin: the own class must win by an angle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, namespace, where
from nearfar._errors import InputError
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.entropy import classes_of, own_among_all
from nearfar.losses.softmax import check_temperature, logit
from nearfar.measures import CosineDistance
from nearfar.relations import Pair, Relation, Rows


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

    def check(self) -> None:
        """Temperature, margin and measure."""
        check_temperature(self.temperature)
        if not 0 <= self.margin < math.pi:
            raise InputError(f"expected margin in [0, π), got {self.margin}; give it in radians, for example 0.5")
        if not isinstance(self.measure, CosineDistance):
            raise InputError(
                f"expected measure of ArcFaceLoss to be CosineDistance(), got {type(self.measure).__name__}; "
                "the margin is an angle"
            )

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes, the own with its margin, minus the own."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The cosine's logit."""
        s *= -1
        s += 1
        z, slope = logit(s, self.temperature)
        return z, -slope

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class, with its margin, among all."""
        target, slope = self._with_margin(xp, positive)
        loss, by_pool, by_logit = own_among_all(xp, target / self.temperature, pool, pair)
        return loss, by_pool, by_logit * slope / self.temperature

    def _with_margin(self, xp: Namespace, d: Array) -> tuple[Array, Array]:
        """ψ and its derivative by the distance."""
        cos_m, sin_m = math.cos(self.margin), math.sin(self.margin)
        cosine = 1 - d
        square = d * (2 - d)
        apart = square > 0
        sine = xp.sqrt(where(xp, apart, square, 0.0))
        turn = where(xp, apart, cosine / where(xp, apart, sine, 1.0), 0.0)
        inside = ~(cosine <= -cos_m)
        value = xp.where(inside, cosine * cos_m - sine * sin_m, cosine - self.margin * sin_m)
        return value, where(xp, inside, -cos_m - turn * sin_m, -1.0)

    def _table(
        self,
        embeddings: Array,
        labels: Any,
        references: Array | None,
        reference_labels: Any,
        class_weights: Array | None,
        ignore_label: int | str | None,
    ) -> tuple[Array | None, Relation | Rows]:
        """Class weights are the references."""
        if class_weights is None:
            return super()._table(embeddings, labels, references, reference_labels, None, ignore_label)
        xp = namespace(embeddings=embeddings, class_weights=class_weights)
        return class_weights, classes_of(xp, labels, references, class_weights, ignore_label)
