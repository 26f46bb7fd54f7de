"""Ranked list loss: positives inside one radius, negatives outside another, the worst offenders weighed most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, at_least, exp_sum, relu, times, where
from nearfar._errors import InputError
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_any, has_both, positive_pool
from nearfar.measures import Distance, Euclidean
from nearfar.relations import Pair

INF = float("inf")


@dataclass(frozen=True)
class RankedListLoss(PairLoss):
    r"""Ranked list loss (Wang 2019).

    .. math::
        \ell_i = (1 - \lambda) \sum_{p} w_{ip} \, (d_{ip} - (\alpha - m))
        + \lambda \sum_{n} w_{in} \, (\alpha - d_{in})

    over the positives with :math:`d_{ip} > \alpha - m` and the negatives with :math:`d_{in} < \alpha`. The weights are
    :math:`w_{ip} \propto e^{T_p (d_{ip} - (\alpha - m))}` and :math:`w_{in} \propto e^{T_n (\alpha - d_{in})}`, each
    side's summing to 1 (a side without such a pair adds 0). The mean over anchors that have a positive and a negative.

    As in the paper the weights alone set the strength of the gradient: they are constants when it is taken, so it is
    not the derivative of the value. ``through_weights=True`` differentiates them too, as other libraries do.

    Args:
        margin: :math:`m \ge 0` between the radii.
        alpha: :math:`\alpha`, the radius outside of which negatives rest. The paper's 0.4 and 1.2 are meant for unit
            vectors, and ``Euclidean()`` normalises nothing.
        positive_scale: :math:`T_p \ge 0`; 0 weighs all violating positives alike.
        negative_scale: :math:`T_n \ge 0`, in one over the unit of the distance; the paper calls both temperatures.
        balance: :math:`\lambda` in [0, 1], the share of the negatives.
        through_weights: Whether the gradient goes through the weights.
        measure: A distance.
        one_sided: Mean over all anchors that have a pair, where one without a positive or without a negative costs what
            its other side does. Else they count for nothing.

    Raises:
        InputError: Hyper-parameters out of range, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
        >>> loss = nf.RankedListLoss(negative_scale=0.0)
        >>> float(loss(x, [0, 0, 1]).round(4))  # ((1.4142 - 0.8) + (1.2 - 0.6325 + 1.2 - 0.8944) / 2) / 2
        0.5254

    Memory: a strip of the table.

    Reference:
        Wang et al., "Ranked List Loss for Deep Metric Learning", CVPR 2019; the weights of positives come with the
        extended version, arXiv 1903.03238.
    """

    margin: float = 0.4
    alpha: float = 1.2
    positive_scale: float = 0.0
    negative_scale: float = 10.0
    balance: float = 0.5
    through_weights: bool = False
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)
    one_sided: bool = False

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Radii, scales and balance."""
        for name in ("margin", "positive_scale", "negative_scale"):
            if not 0 <= getattr(self, name) < INF:
                raise InputError(
                    f"expected a finite {name} >= 0, got {getattr(self, name)}; the paper's are 0.4, 0, 10"
                )
        if not abs(self.alpha) < INF:
            raise InputError(f"expected a finite alpha, got {self.alpha}; give the distance beyond which unlike rest")
        if not 0 <= self.balance <= 1:
            raise InputError(f"expected balance in [0, 1], got {self.balance}; 0.5 weighs both sides alike")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Both sides, each a mean under its own weights."""
        too_far = relu(xp, pair.take(s) - (self.alpha - self.margin))
        _, share = positive_pool(xp, _among(xp, too_far, self.positive_scale), pair)
        s *= -1
        s += self.alpha
        too_near = relu(xp, s)
        _, push, total = exp_sum(xp, pair.negative_logits(_among(xp, too_near, self.negative_scale)))
        push /= at_least(xp, total, 1.0)
        near = xp.sum(times(xp, share, too_far), axis=1, keepdims=True)
        far = xp.sum(times(xp, push, too_near), axis=1, keepdims=True)
        if self.through_weights:
            share = times(xp, share, 1 + self.positive_scale * (too_far - near))
            push = times(xp, push, 1 + self.negative_scale * (too_near - far))
        push *= -self.balance
        loss = (1 - self.balance) * near + self.balance * far
        return loss, pair.add(push, (1 - self.balance) * share)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative; with ``one_sided`` where it has either."""
        return (has_any if self.one_sided else has_both)(xp, pair, weight)


def _among(xp: Namespace, gap: Array, scale: float) -> Array:
    """The exponents of the pairs with a gap, −∞ of those that rest; NaN stays."""
    return where(xp, ~(gap <= 0), scale * gap, -INF)
