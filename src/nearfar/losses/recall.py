"""Losses on how many negatives stand before each positive: recall at k, and PNP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, at_least, sigmoid
from nearfar._errors import InputError
from nearfar.losses.base import PairLoss
from nearfar.losses.ranks import by_rank
from nearfar.losses.softmax import check_temperature
from nearfar.measures import Cosine, Similarity
from nearfar.relations import Pair


@dataclass(frozen=True)
class RecallAtKLoss(PairLoss):
    r"""Recall@k surrogate (Patel 2022): which positives stand among the first k, with two smooth steps.

    With :math:`\sigma_\tau(z) = 1 / (1 + e^{-z / \tau})` and the smooth rank
    :math:`r_{ip} = 1 + \sum_{j \in A_i \setminus p} \sigma_{\tau}(s_{ij} - s_{ip})`,

    .. math::
        \ell_i = 1 - \frac{1}{|K|} \sum_{k \in K} \frac{1}{\min(k, |P_i|)} \sum_{p \in P_i} \sigma_{\tau_r}(k - r_{ip})

    and the mean over anchors that have a positive.

    Args:
        k: :math:`K`, one or more whole numbers.
        temperature: :math:`\tau > 0` of the ranks, in the unit of the similarity.
        rank_temperature: :math:`\tau_r > 0` of the step at k, in places of the ranking.
        measure: A similarity.

    Raises:
        InputError: No k, one that is not a whole number >= 1, a temperature that is not positive, or a distance as
            measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.RecallAtKLoss(k=(1, 2))(x, [0, 0, 1, 1]).round(4))
        0.5

    At :math:`r = k` the step has its middle, ½: a perfect ranking does not cost 0. The divisor :math:`\min(k, |P_i|)`
    is that of the authors' code.

    Memory: a strip of the table; time grows with the number of positives an anchor.

    Reference:
        Patel, Tolias, Matas, "Recall@k Surrogate Loss with Large Batches and Similarity Mixup", CVPR 2022, section 3.
        arXiv 2108.11179
    """

    k: tuple[int, ...] = (1, 2, 4, 8, 16)
    temperature: float = 0.01
    rank_temperature: float = 1.0
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Places and temperatures."""
        whole = isinstance(self.k, tuple) and all(isinstance(k, int) and k >= 1 for k in self.k)
        if not whole or not self.k:
            raise InputError(f"expected k to be a tuple of whole numbers >= 1, got {self.k!r}; for example k=(1, 2, 4)")
        check_temperature(self.temperature)
        check_temperature(self.rank_temperature, "rank_temperature")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One pass over the strip for each listed positive."""
        count, slope = at_least(xp, pair.positive_count, 1.0), len(self.k) * self.rank_temperature

        def cost(wrong: Array, place: Array) -> tuple[Array, Array, Array]:
            rank, value, rise = wrong + place, 1.0, 0.0
            for k in self.k:
                inside = sigmoid(xp, (k - rank) / self.rank_temperature)
                # Each positive has a share of 1 / |P|.
                each = count / xp.clip(count, max=float(k))
                value, rise = value - each * inside / len(self.k), rise + each * inside * (1 - inside) / slope
            return value, rise, rise

        return by_rank(xp, s, pair, self.temperature, cost)


@dataclass(frozen=True)
class PNPLoss(PairLoss):
    r"""PNP (Li 2022): a penalty on the smooth number of negatives before each positive, and on nothing else.

    With :math:`\sigma_{jp} = 1 / (1 + e^{-(s_{ij} - s_{ip}) / \tau})` and
    :math:`R_{ip} = \sum_{j \in N_i} \sigma_{jp}`,

    .. math::
        \ell_i = \frac{1}{|P_i|} \sum_{p \in P_i} f(R_{ip})

    and the mean over anchors that have a positive; where one has no negative its loss is 0. By variant :math:`f(R)` is

    - ``"O"``: :math:`R`
    - ``"Iu"``: :math:`(1 + R) \log(1 + R)`
    - ``"Ib"``: :math:`(b R - \log(1 + b R)) / b^2`
    - ``"Ds"``: :math:`\log(1 + R)`
    - ``"Dq"``: :math:`1 - (1 + R)^{-\alpha}`

    The slope of the first I grows without a bound and of the second up to :math:`1 / b`, those of the D fall with R.

    Args:
        variant: One of the five.
        alpha: :math:`\alpha > 0` of ``"Dq"``.
        b: :math:`b > 0` of ``"Ib"``.
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        measure: A similarity.

    Raises:
        InputError: Another variant, a number that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.PNPLoss(variant="O", temperature=0.1)(x, [0, 0, 1, 1]).round(4))
        0.5354

    pytorch-metric-learning 2.9.0 (default variant ``"O"``, α 1) and the authors' code count the anchor among its own
    positives, as ``loss(x, labels, references=x, reference_labels=labels)`` does.

    Memory: a strip of the table; time grows with the number of positives an anchor.

    Reference:
        Li et al., "Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before
        Positive Ones is Enough", AAAI 2022. ``"Dq"`` with α = 4 is what the authors' code names its best.
    """

    variant: str = "Dq"
    alpha: float = 4.0
    b: float = 2.0
    temperature: float = 0.01
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Variant and numbers."""
        if self.variant not in ("O", "Iu", "Ib", "Ds", "Dq"):
            raise InputError(f"expected variant O, Iu, Ib, Ds or Dq, got {self.variant!r}; the paper's best is Dq")
        for name in ("alpha", "b"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"expected a finite {name} > 0, got {getattr(self, name)}; give a positive number")
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One pass over the strip for each listed positive."""

        def cost(wrong: Array, place: Array) -> tuple[Array, Array, Array]:
            value, rise = self._penalty(xp, wrong)
            # A positive that is not a number has no place, and must reach the value where there is no negative.
            return value + 0 * place, rise, xp.zeros_like(rise)

        return by_rank(xp, s, pair, self.temperature, cost)

    def _penalty(self, xp: Namespace, wrong: Array) -> tuple[Array, Array]:
        """``f(R)`` and its derivative."""
        if self.variant == "O":
            return wrong, xp.ones_like(wrong)
        grown = xp.log1p(self.b * wrong if self.variant == "Ib" else wrong)
        if self.variant == "Iu":
            return (1 + wrong) * grown, 1 + grown
        if self.variant == "Ib":
            return _above_log(xp, self.b * wrong, grown) / self.b**2, wrong / (1 + self.b * wrong)
        if self.variant == "Ds":
            return grown, 1 / (1 + wrong)
        kept = xp.exp(-self.alpha * grown)
        return -xp.expm1(-self.alpha * grown), self.alpha * kept / (1 + wrong)


def _above_log(xp: Namespace, u: Array, log: Array) -> Array:
    """``u − log(1 + u)``, of a small u by its series, since they cancel."""
    tail = 1 / 7 - u / 8
    for k in (6, 5, 4, 3, 2):
        tail = 1 / k - u * tail
    return xp.where(u < 0.01, u * u * tail, u - log)
