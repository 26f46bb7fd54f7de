"""Average precision: one minus a smooth average precision of each anchor's ranked references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nearfar._arrays import Array, Namespace, take_columns, times, where
from nearfar._errors import InputError, expect_whole
from nearfar.losses.base import PairLoss
from nearfar.losses.ranks import by_rank, not_infinite
from nearfar.losses.softmax import check_temperature
from nearfar.measures import Cosine, CosineDistance, Distance, Similarity
from nearfar.relations import Pair


@dataclass(frozen=True)
class FastAPLoss(PairLoss):
    r"""FastAP (Cakir 2019): average precision over a soft histogram of distances.

    The nodes :math:`0, \Delta, 2\Delta, \dots` with :math:`\Delta = \text{span} / \text{bins}` cut the distances; a
    pair counts for the two nodes beside it, in proportion to how near they are. With :math:`h_k` and :math:`h_k^+` the
    counts of all and of the positives at node k, :math:`H_k` and :math:`H_k^+` their sums up to k,

    .. math::
        \ell_i = 1 - \frac{1}{|P_i|} \sum_k \frac{h_k^+ H_k^+}{H_k}

    and the mean over anchors that have a positive; where one has no negative its loss is 0.

    Args:
        bins: Intervals between nodes.
        span: Last node, in the unit of the distance. Pairs beyond it count there and have gradient 0.
        measure: A distance. With the default, cosine distance up to 2, no pair is ever beyond; it is half the paper's
            squared distance of unit vectors, so the histogram is the same.

    Raises:
        InputError: Less than one bin, a span that is not positive, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.FastAPLoss(bins=10)(x, [0, 0, 1, 1]).round(4))
        0.25

    The loss is piecewise linear in the counts: at a node itself the gradient is that of the bin above, at ``span`` 0.

    Memory: a strip of the table and ``bins + 1`` numbers an anchor.

    Reference:
        Cakir et al., "Deep Metric Learning to Rank", CVPR 2019, section 3 (FastAP).
    """

    bins: int = 10
    span: float = 2.0
    measure: Distance = CosineDistance()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Bins and span."""
        expect_whole("bins", self.bins, remedy="the paper uses 10")
        if not 0 < self.span < float("inf"):
            raise InputError(f"expected a finite span > 0, got {self.span}; give the largest distance that can be")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Counts up to each node, and each pair's weight looked up in its bin."""
        t = self._position(xp, s)
        near = pair.take(t)
        far = pair.negatives(t, self.bins + 1.0)
        fresh, before = self._positives(xp, near, pair), self._negatives(xp, far, pair)
        own = xp.cumulative_sum(fresh, axis=1)
        whole = own + before
        whole = where(xp, whole != 0, whole, 1.0)
        share, count = before / whole, where(xp, pair.positive_count > 0, pair.positive_count, 1.0)
        # One minus the paper's sum, without the cancellation: Σ h⁺ is the number of positives.
        loss = xp.sum(fresh * share, axis=1, keepdims=True) / count
        # ∂loss/∂N_k, ∂loss/∂H⁺_k and ∂loss/∂h⁺_k.
        by_far, by_own = fresh * own / whole / whole / count, -fresh * share / whole / count
        by_fresh = share / count + xp.flip(xp.cumulative_sum(xp.flip(by_own, axis=1), axis=1), axis=1)
        weight = pair.weigh(self._look_up(xp, -by_far[:, :-1], far))
        pull = self._look_up(xp, by_fresh[:, 1:] - by_fresh[:, :-1], near)
        return loss, pair.add(weight, times(xp, pair.weight, pull))

    def _position(self, xp: Namespace, d: Array) -> Array:
        """Distances in units of a bin, those beyond the span at it; overwrites ``d``."""
        d *= self.bins / self.span
        return xp.clip(not_infinite(d), max=float(self.bins))

    def _positives(self, xp: Namespace, near: Array, pair: Pair) -> Array:
        """``h⁺`` at each node."""
        # Not 1 − |t − k|, which would lose the digits of a t near a node.
        beside = (xp.clip(xp.minimum(near - (k - 1), k + 1 - near), min=0) for k in range(self.bins + 1))
        return xp.stack([xp.sum(times(xp, pair.weight, part), axis=1) for part in beside], axis=1)

    def _negatives(self, xp: Namespace, far: Array, pair: Pair) -> Array:
        """How many negatives stand up to each node, as ramps: no scatter, so the sums have one order on every device.

        What is no negative stands at ``bins + 1``, which no ramp reaches.
        """
        ramps = (xp.clip(k + 1 - far, min=0, max=1) for k in range(self.bins))
        counts = [xp.sum(pair.weigh(ramp), axis=1) for ramp in ramps]
        return xp.stack([*counts, pair.negative_count[:, 0]], axis=1)

    def _look_up(self, xp: Namespace, slopes: Array, t: Array) -> Array:
        """Derivative by the distance: the slope of each pair's bin; 0 at the span and beyond."""
        rest = xp.zeros_like(slopes[:, :1])
        cell = xp.clip(where(xp, t == t, t, 0.0), max=float(self.bins))
        found = take_columns(xp, xp.concat([slopes, rest], axis=1), xp.astype(cell, xp.int64))
        return found * (self.bins / self.span)


@dataclass(frozen=True)
class SmoothAPLoss(PairLoss):
    r"""Smooth-AP (Brown 2020): average precision whose ranks count sigmoids of similarity differences.

    With :math:`\sigma_{jp} = 1 / (1 + e^{-(s_{ij} - s_{ip}) / \tau})`,

    .. math::
        \ell_i = 1 - \frac{1}{|P_i|} \sum_{p \in P_i}
        \frac{1 + \sum_{q \in P_i \setminus p} \sigma_{qp}}{1 + \sum_{j \in A_i \setminus p} \sigma_{jp}}

    and the mean over anchors that have a positive; where one has no negative its loss is 0.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        measure: A similarity.

    Raises:
        InputError: A temperature that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.SmoothAPLoss(temperature=0.1)(x, [0, 0, 1, 1]).round(4))
        0.2971

    pytorch-metric-learning 2.9.0 counts the anchor among its own positives, as
    ``loss(x, labels, references=x, reference_labels=labels)`` does. It takes sorted classes of one size only, and
    agrees where there are as many classes as items in each.

    Memory: a strip of the table; time grows with the number of positives an anchor.

    Reference:
        Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval", ECCV 2020, section 3.
        arXiv 2007.12163
    """

    temperature: float = 0.01
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One pass over the strip for each listed positive."""

        def cost(wrong: Array, place: Array) -> tuple[Array, Array, Array]:
            rank = place + wrong
            return wrong / rank, place / rank / rank, -wrong / rank / rank

        return by_rank(xp, s, pair, self.temperature, cost)
