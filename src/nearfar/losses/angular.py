"""Angular loss: the angle at a negative under which a positive pair is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import (
    Array,
    Namespace,
    add_product,
    add_rows,
    at_least,
    exp_sum,
    sigmoid,
    softplus,
    times,
    where,
    zeros,
)
from nearfar._errors import InputError
from nearfar.engine.passes import Passes
from nearfar.engine.sums import per_term
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import positives_or_one
from nearfar.measures import Cosine, Dot, Similarity
from nearfar.relations import Pair


class PairsAsAnchors(Passes):
    """The anchors ``own`` and each of their positives against all references, in strips of ``height`` anchors."""

    each_positive: ClassVar[bool] = True

    def run(self, upstream: Array | None, gradient: bool, into: tuple[Array, Array]) -> tuple[Array, Array]:
        """Losses and terms of the own anchors; their gradient is added to ``into``."""
        xp, count = self.xp, self.own.stop - self.own.start
        losses, terms = zeros(xp, (count,), self.a.rows), zeros(xp, (count,), self.a.rows, xp.float64)
        for start, stop in self.strips():
            part, pair = self.part(start, stop), self.bound.strip(start, stop)
            terms[part] = xp.reshape(xp.astype(self.loss.terms(xp, pair, pair.weight), xp.float64), (-1,))
            share = xp.astype(terms[part, None] > 0, losses.dtype)
            if upstream is not None:
                share = per_term(xp, upstream[part], terms[part])
            anchors, left = self.a.rows[start:stop], into[0][start:stop]
            value = zeros(xp, (stop - start, 1), losses)
            longest = xp.max(xp.count_nonzero(pair.weight, axis=1)) if pair.weight.shape[1] else 0
            columns, weights = pair.listed(int(longest), self.loss.by_pair)
            for r in range(columns.shape[1]):
                weight, column = weights[:, r : r + 1], columns[:, r]
                positives = self.b.rows[column]
                both = anchors + positives
                near = xp.sum(anchors * positives, axis=1, keepdims=True)
                odds, push, felt = self.loss.seen(xp, both @ self.b.rows.T, near, pair, share * weight)
                value += times(xp, weight, odds)
                if gradient:
                    pushed = push @ self.b.rows
                    add_product(xp, into[1], push.T, both)
                    left += pushed + felt * positives
                    add_rows(into[1], column, pushed + felt * anchors)
            losses[part] = where(xp, terms[part] > 0, value[:, 0], 0.0)
        return losses, terms


@dataclass(frozen=True)
class AngularLoss(PairLoss):
    r"""Angular loss (Wang 2017).

    .. math::
        \ell_i = \frac{1}{|P_i|} \sum_{p \in P_i} \log\Big(1 + \sum_{n \in N_i}
        e^{4 \tan^2\!\alpha \, (s_{in} + s_{pn}) - 2 (1 + \tan^2\!\alpha) \, s_{ip}}\Big)

    and the mean over anchors that have a positive and a negative. The paper's batch has two items a class. The formula
    drops terms that are constant on unit vectors: ``Cosine()`` is what it is meant for.

    A triplet's negatives are seen from both of its other items, so the anchors of the table are pairs: as many
    products of its size as an anchor has positives (three times, with the gradient).

    Args:
        angle: :math:`\alpha` in (0, π/2), in radians; the paper's is 45 degrees.
        measure: ``Cosine()`` or ``Dot()``.
        by_pair: Mean over the positive pairs instead, as in other libraries: an anchor counts as often as it has
            positives.

    Raises:
        InputError: An angle out of range, or another measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.AngularLoss()(x, [0, 0, 1, 1]).round(4))
        3.107

    Memory: a strip of the table.

    Reference:
        Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017, the N-pair form. arXiv 1708.01682
    """

    angle: float = math.pi / 4
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)
    by_pair: bool = False

    kind: ClassVar[str] = "similarity"
    # A strip does not hold the similarities of an anchor's positives: the loss runs its table itself.
    passes: ClassVar[Any] = PairsAsAnchors

    def check(self) -> None:
        """Angle and measure."""
        if not 0 < self.angle < math.pi / 2:
            raise InputError(f"expected angle in (0, π/2), got {self.angle}; give it in radians, for example π/4")
        if not isinstance(self.measure, Dot | Cosine):
            raise InputError(
                f"expected measure of AngularLoss to be Cosine() or Dot(), got {type(self.measure).__name__}; "
                "sums of embeddings are compared"
            )

    @property
    def slopes(self) -> tuple[float, float]:
        """What stands before the negatives' and before the positive's similarities."""
        square = math.tan(self.angle) ** 2
        return 4 * square, -2 * (1 + square)

    def seen(self, xp: Namespace, table: Array, near: Array, pair: Pair, share: Array) -> tuple[Array, Array, Array]:
        """Anchors with one positive each: their loss, and what the table and the positive weigh in ``share`` of it.

        ``table`` holds an anchor's and its positive's similarities to all references, added; it may be overwritten.
        ``near`` is that of the two, a column like ``share``.
        """
        far, own = self.slopes
        table *= far
        pool, push, total = exp_sum(xp, pair.negative_logits(table))
        odds = pool + own * near
        felt = times(xp, share, sigmoid(xp, odds))
        push *= felt * far / at_least(xp, total, 1.0)
        return softplus(xp, odds), push, felt * own

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative; with ``by_pair`` each positive is a term."""
        return positives_or_one(xp, pair, weight, self.by_pair)
