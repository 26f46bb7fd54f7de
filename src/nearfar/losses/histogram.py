"""Histogram loss: how the similarities of all positives and of all negatives overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, tally, times, where
from nearfar._errors import InputError, expect_whole
from nearfar.losses.base import PairLoss
from nearfar.losses.ranks import not_infinite
from nearfar.measures import Cosine, Similarity
from nearfar.relations import Pair


@dataclass(frozen=True)
class HistogramLoss(PairLoss):
    r"""Histogram loss (Ustinova 2016): the probability that a negative is more similar than a positive.

    The nodes :math:`t_0, \dots, t_B` cut the range into B bins of width Δ; a pair counts for the two nodes beside it,
    in proportion to how near they are. With :math:`h_q^+` and :math:`h_r^-` the counts of all positive and all negative
    pairs of the batch, each over their number,

    .. math::
        \ell = \sum_r h_r^- \sum_{q \le r} h_q^+

    It is one number of the whole table and no mean over anchors. An anchor's part, which ``per_anchor`` gives, is the
    mean over its own positives of how likely a negative of the batch (of any anchor) is more similar; their mean over
    all positive pairs is the loss. Without a positive or without a negative in the batch it is 0.

    Args:
        bins: B.
        span: :math:`t_0` and :math:`t_B`, in the unit of the similarity. Pairs beyond count at the end, with
            gradient 0.
        measure: A similarity. With the default, cosine from −1 to 1, no pair is beyond.

    Raises:
        InputError: Less than one bin, a span that is empty or not finite, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.HistogramLoss(bins=10)(x, [0, 0, 1, 1]).round(4))
        0.25

    The loss is piecewise linear in the counts: at a node itself the gradient is that of the bin above, at the end 0.
    The default is pytorch-metric-learning's, which leaves out pairs of two items neither of which has a positive.

    Memory: a strip of the table, each anchor's positives and ``bins`` numbers.

    Reference:
        Ustinova, Lempitsky, "Learning Deep Embeddings with Histogram Loss", NeurIPS 2016, section 3. arXiv 1611.00822
    """

    bins: int = 100
    span: tuple[float, float] = (-1.0, 1.0)
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"

    def check(self) -> None:
        """Bins and span."""
        expect_whole("bins", self.bins, remedy="100 is usual")
        low, high = self.span
        if not -float("inf") < low < high < float("inf"):
            raise InputError(f"expected a span (low, high) of finite numbers, got {self.span}; the cosine's is (-1, 1)")

    def tally(self, xp: Namespace, s: Array, weight: Array) -> Array:
        """Weight at each node, float64; shape (bins + 1,)."""
        cell, part, _ = self._place(xp, s)
        upper = tally(xp, cell, times(xp, weight, part), self.bins)
        lower = tally(xp, cell, times(xp, weight, 1 - part), self.bins)
        rest = xp.zeros_like(upper[:1])
        return xp.concat([lower, rest]) + xp.concat([rest, upper])

    def judge(self, xp: Namespace, s: Array, far: Array) -> tuple[Array, Array]:
        """Probability that a negative is more similar than a positive at ``s``, and its derivative."""
        cell, part, inside = self._place(xp, s)
        total = xp.sum(far)
        share = far / where(xp, total != 0, total, 1.0)
        above = xp.flip(xp.cumulative_sum(xp.flip(share)))
        value = (1 - part) * xp.astype(above[:-1], s.dtype)[cell] + part * xp.astype(above[1:], s.dtype)[cell]
        slope = xp.astype(-share[:-1] * self._scale, s.dtype)[cell]
        return value, where(xp, inside, slope, 0.0)

    def push(self, xp: Namespace, s: Array, near: Array, far: Array) -> Array:
        """Derivative by negatives at ``s``: the positives counted at the node above them."""
        cell, _, inside = self._place(xp, s)
        total = xp.sum(far)
        slope = near[1:] * self._scale / where(xp, total != 0, total, 1.0)
        return where(xp, inside, xp.astype(slope, s.dtype)[cell], 0.0)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each positive is a term."""
        return pair.positive_count

    @property
    def _scale(self) -> float:
        return self.bins / (self.span[1] - self.span[0])

    def _place(self, xp: Namespace, s: Array) -> tuple[Array, Array, Array]:
        """The bin of each pair, its place in it from 0 to 1, and whether it is within the span."""
        t = (not_infinite(xp.asarray(s, copy=True)) - self.span[0]) * self._scale
        inside = (t >= 0) & (t < self.bins)
        t = xp.clip(t, min=0.0, max=float(self.bins))
        cell = xp.astype(xp.clip(where(xp, t == t, t, 0.0), max=self.bins - 1.0), xp.int64)
        return cell, t - xp.astype(cell, t.dtype), inside
