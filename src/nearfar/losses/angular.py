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
from nearfar.losses.pools import has_both
from nearfar.measures import Cosine, Dot, Similarity
from nearfar.relations import Pair


class PairsAsAnchors(Passes):
    """The anchors ``own`` and each of their positives against all references, in strips of ``height`` anchors."""

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
            for r in range(pair.index.shape[1]):
                weight, column = pair.share[:, r : r + 1], pair.index[:, r]
                odds, push, total, both = self._odds(anchors, column, pair)
                value += times(xp, weight, softplus(xp, odds))
                if gradient:
                    self._pull(times(xp, share * weight, sigmoid(xp, odds)), push, total, both, (left, into[1]), column)
            losses[part] = where(xp, terms[part] > 0, value[:, 0], 0.0)
        return losses, terms

    def _odds(self, anchors: Array, column: Array, pair: Pair) -> tuple[Array, Array, Array, tuple[Array, Array]]:
        """Log-odds of anchors with one positive each against their negatives, and what these weigh in them."""
        xp, (far, near), positives = self.xp, self.loss.slopes, self.b.rows[column]
        table = (far * (anchors + positives)) @ self.b.rows.T
        pool, push, total = exp_sum(xp, pair.negative_logits(table))
        return pool + near * xp.sum(anchors * positives, axis=1, keepdims=True), push, total, (anchors, positives)

    def _pull(
        self,
        felt: Array,
        push: Array,
        total: Array,
        both: tuple[Array, Array],
        into: tuple[Array, Array],
        column: Array,
    ) -> None:
        xp, (far, near), (anchors, positives), (left, right) = self.xp, self.loss.slopes, both, into
        push *= felt * far / at_least(xp, total, 1.0)
        pushed = push @ self.b.rows
        add_product(xp, right, push.T, anchors + positives)
        felt *= near
        left += pushed + felt * positives
        add_rows(right, column, pushed + felt * anchors)


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

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)
