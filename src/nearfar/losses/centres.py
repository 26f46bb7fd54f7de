"""Softmax over classes that have several centres each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, arange, namespace, sigmoid, softplus, times, where
from nearfar._errors import InputError, ShapeError, expect_whole
from nearfar.engine import Engine, Given
from nearfar.engine.rules import pooled
from nearfar.losses.angles import check_angle, cosine_logit, turned
from nearfar.losses.base import PairLoss
from nearfar.losses.class_rows import by_class, class_rows
from nearfar.losses.dispatch import Ready
from nearfar.losses.pools import positive_pool
from nearfar.losses.softmax import check_temperature
from nearfar.measures import Cosine, CosineDistance, Similarity
from nearfar.relations import Labels, Pair

INF = float("inf")


@dataclass(frozen=True)
class SubCenterArcFaceLoss(PairLoss):
    r"""Sub-centre ArcFace (Deng 2020): ArcFace on the nearest of a class's centres.

    With :math:`w_{c1} \dots w_{ck}` the centres of class c and :math:`\theta_c = \min_j \angle(x_i, w_{cj})`,

    .. math::
        \ell_i = \log \Big( e^{\psi(\theta_{y_i}) / \tau} + \sum_{c \neq y_i} e^{\cos \theta_c / \tau} \Big)
        - \psi(\theta_{y_i}) / \tau

    and :math:`\psi(\theta) = \cos(\theta + m)` as in :class:`~nearfar.ArcFaceLoss`. Items with a wrong label gather at
    centres of their own. ``class_weights`` has the centres of class c in the rows c · k … c · k + k − 1. Other
    references (or the batch itself) are a centre each; those of an anchor's own label are the centres of its class.

    Args:
        margin: :math:`m` in radians, 0 ≤ m < π.
        temperature: :math:`\tau > 0`; one over the paper's scale s.
        per_class: :math:`k`, rows of ``class_weights`` a class.
        measure: The cosine distance; no other measure has an angle.

    Raises:
        InputError: A margin outside its range, a temperature or count that is not positive, or another measure.
        ShapeError: Class weights that are not ``per_class`` a class.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> weights = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> loss = nf.SubCenterArcFaceLoss(margin=0.5, temperature=0.5, per_class=2)
        >>> float(loss(x, [0, 1], class_weights=weights).round(4))
        0.8959

    Among centres at one and the same distance the first counts. Memory: a strip of the table.

    Reference:
        Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces", ECCV 2020.
    """

    margin: float = 0.5
    temperature: float = 1 / 64
    per_class: int = 3
    measure: CosineDistance = CosineDistance()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    has_class_weights: ClassVar[bool] = True
    _table = class_rows

    def check(self) -> None:
        """Temperature, count, margin and measure."""
        check_temperature(self.temperature)
        expect_whole("per_class", self.per_class, remedy="try 3")
        check_angle(self, self.margin)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes' nearest centres, the own with its margin, minus the own."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The cosine's logit; −inf at all centres of a class but the nearest."""
        z, slope = cosine_logit(s, self.temperature)
        if self.per_class == 1:
            return z, slope
        runs = by_class(xp, z, self.per_class)
        top = xp.argmax(runs, axis=2)
        nearest = arange(xp, self.per_class, z)[None, None, :] == top[:, :, None]
        return xp.reshape(where(xp, nearest, runs, -INF), tuple(z.shape)), slope

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class's nearest centre, with its margin, among all."""
        if positive.shape[1] == 0:
            return xp.zeros_like(pool), xp.zeros_like(pool), positive
        inside = pair.weight > 0
        top = xp.argmin(where(xp, inside, positive, INF), axis=1)
        nearest = arange(xp, positive.shape[1], positive)[None, :] == top[:, None]
        nearest = xp.astype(inside & nearest, positive.dtype)
        own = xp.sum(times(xp, nearest, positive), axis=1, keepdims=True)
        target, slope = turned(xp, own, self.margin)
        odds = pool - target / self.temperature
        missing = sigmoid(xp, odds)
        return softplus(xp, odds), missing, nearest * (-missing * slope / self.temperature)

    def _ready(self, given: Given, engine: Engine) -> Ready:
        return _for_table(self, super()._ready(given, engine))


@dataclass(frozen=True)
class SoftTripleLoss(PairLoss):
    r"""SoftTriple (Qian 2019): cross-entropy over classes, each as similar as a softmax over its centres says.

    With :math:`s_{icj}` the similarity to centre j of class c,

    .. math::
        S_{ic} = \sum_j \frac{e^{s_{icj} / \gamma}}{\sum_l e^{s_{icl} / \gamma}} s_{icj}, \qquad
        \ell_i = \log \Big( e^{(S_{i y_i} - m) / \tau} + \sum_{c \neq y_i} e^{S_{ic} / \tau} \Big)
        - (S_{i y_i} - m) / \tau

    ``class_weights`` has the centres of class c in the rows c · k … c · k + k − 1. Other references (or the batch
    itself) are a centre each; those of an anchor's own label are the centres of its class. The paper adds 0.2 times
    :meth:`centre_spread`, which lets superfluous centres merge.

    Args:
        margin: :math:`m \geq 0`, the paper's δ.
        temperature: :math:`\tau > 0`; one over the paper's λ.
        gamma: :math:`\gamma > 0`, how soft the choice among a class's centres is.
        per_class: :math:`k`, rows of ``class_weights`` a class; the paper's K.
        measure: A similarity; the cosine in the paper.

    Raises:
        InputError: A hyper-parameter outside its range, or a distance as measure.
        ShapeError: Class weights that are not ``per_class`` a class.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> weights = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> loss = nf.SoftTripleLoss(temperature=0.5, per_class=2)
        >>> float(loss(x, [0, 1], class_weights=weights).round(4))
        0.6775
        >>> float(loss.centre_spread(weights).round(4))
        0.3162

    Memory: a strip of the table.

    Reference:
        Qian et al., "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling", ICCV 2019. arXiv 1909.05235
    """

    margin: float = 0.01
    temperature: float = 1 / 20
    gamma: float = 0.1
    per_class: int = 10
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    has_class_weights: ClassVar[bool] = True
    _table = class_rows

    def check(self) -> None:
        """Temperature, count, softness and margin."""
        check_temperature(self.temperature)
        expect_whole("per_class", self.per_class, remedy="try 3")
        if not 0 < self.gamma < INF:
            raise InputError(f"expected gamma > 0, got {self.gamma}; 0.1 in the paper")
        if not 0 <= self.margin < INF:
            raise InputError(f"expected margin >= 0, got {self.margin}; 0.01 in the paper")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes, the own with its margin, minus the own."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, Array | float]:
        """S / τ of the class plus the log of the centre's share, whose exponentials sum to the class's own."""
        if self.per_class == 1:
            return s / self.temperature, 1 / self.temperature
        runs = by_class(xp, s, self.per_class)
        z = runs / self.gamma
        z = z - xp.max(z, axis=2, keepdims=True)
        share = xp.exp(z)
        total = xp.sum(share, axis=2, keepdims=True)
        whole = xp.sum(share * runs, axis=2, keepdims=True) / total
        slope = (1 + (runs - whole) / self.gamma) / self.temperature
        z = z - xp.log(total) + whole / self.temperature
        return xp.reshape(z, tuple(s.shape)), xp.reshape(slope, tuple(s.shape))

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class, with its margin, among all."""
        share = positive_pool(xp, positive / self.gamma, pair)[1]
        whole = xp.sum(times(xp, share, positive), axis=1, keepdims=True)
        slope = times(xp, share, 1 + (positive - whole) / self.gamma)
        odds = pool - (whole - self.margin) / self.temperature
        missing = sigmoid(xp, odds)
        return softplus(xp, odds), missing, times(xp, slope, -missing / self.temperature)

    def centre_spread(self, class_weights: Array) -> Array:
        r"""Half the mean chord between two centres of one class, to add to the loss: the paper's R without its τ.

        .. math::
            R = \frac{1}{C k (k - 1)} \sum_c \sum_{j < l} \sqrt{2 - 2 \cos(w_{cj}, w_{cl})}

        Args:
            class_weights: As of a call; shape (classes · per_class, features). Two equal centres have gradient 0.
        """
        xp = namespace(class_weights=class_weights)
        rows = class_weights.shape[0] if class_weights.ndim else 0
        if rows % self.per_class:
            raise ShapeError(f"expected {self.per_class} class_weights a class, got {rows}; see per_class")
        return _Chord()(class_weights, Labels(arange(xp, rows, class_weights) // self.per_class))

    def _ready(self, given: Given, engine: Engine) -> Ready:
        return _for_table(self, super()._ready(given, engine))


@dataclass(frozen=True)
class _Chord(PairLoss):
    """Half the mean chord between items of one class; the mean over pairs."""

    measure: CosineDistance = CosineDistance()  # noqa: RUF009  (frozen, without state)
    kind: ClassVar[str] = "distance"

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """√(2 d) / 2; weight 0 at distance 0."""
        d = pair.take(s)
        apart = (pair.weight > 0) & ~(d <= 0)
        chord = xp.sqrt(2 * where(xp, apart, d, 0.0))
        slope = where(xp, apart, 0.5 / where(xp, apart, chord, 1.0), 0.0)
        return xp.sum(times(xp, pair.weight, chord), axis=1) / 2, pair.add(xp.zeros_like(s), pair.weight * slope)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each pair is a term."""
        return pair.positive_count


def _for_table(loss: Any, ready: Ready) -> Ready:
    """On references that are no class weights each negative stands alone."""
    given, task, rows = ready
    if given.equal or loss.per_class == 1:
        return ready
    return given, replace(task, loss=replace(loss, per_class=1)), rows


__all__ = ["SoftTripleLoss", "SubCenterArcFaceLoss"]
