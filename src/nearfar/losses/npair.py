"""N-pair losses: a positive against many negatives, all at once or one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, add_column, fold, sigmoid, softplus, times
from nearfar.engine import Engine, Given
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_both
from nearfar.losses.softmax import one_positive
from nearfar.measures import Dot, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import Aligned, BoundRelation, Pair


@dataclass(frozen=True)
class NPairLoss(PairLoss):
    r"""Multi-class N-pair loss (Sohn 2016): InfoNCE at temperature 1 on inner products.

    .. math::
        \ell_i = \log\Big(1 + \sum_{n \in N_i} e^{\langle x_i, x_n \rangle - \langle x_i, x_i^+ \rangle}\Big)

    and its one-versus-one form, which takes the sum out of the logarithm:

    .. math::
        \ell_i = \sum_{n \in N_i} \log\big(1 + e^{\langle x_i, x_n \rangle - \langle x_i, x_i^+ \rangle}\big)

    Of several positives the mean; the mean over anchors that have a positive and a negative. :meth:`aligned` is the
    paper's batch: row i of the anchors with row i of the positives, whose other rows are the negatives, in the one
    direction of the paper.

    Args:
        measure: A similarity; nothing is normalised by default, as in the paper (which regularises norms instead).
        one_versus_one: The second form.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> float(nf.NPairLoss().aligned(x, y).round(4))
        0.3937

    Memory: a strip of the table.

    Reference:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016, eq. (7).
    """

    measure: Similarity = Dot()  # noqa: RUF009  (frozen, without state)
    one_versus_one: bool = False

    kind: ClassVar[str] = "similarity"
    linear: ClassVar[float] = 1.0

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """One log-odds term a positive, or a positive and negative."""
        return _one_by_one(xp, s, pair) if self.one_versus_one else pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles of the first form."""
        return None if self.one_versus_one else pooled_tiles(self, xp, bound, sides)

    @property
    def in_parts(self) -> bool:
        """The first form feels its negatives through their log-sum-exp only."""
        return not self.one_versus_one

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The logit."""
        return s, 1.0

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """Each positive alone against the negatives."""
        return one_positive(xp, positive, pool, pair.share, 1.0)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """1 where the anchor has a positive and a negative."""
        return has_both(xp, pair, weight)

    def aligned(self, left: Array, right: Array, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The paper's batch of N pairs, anchors against positives.

        Args:
            left: One anchor a pair; shape (pairs, features).
            right: Its positive; shape (pairs, features).
            engine: How to run it.
            group: Ranks that share the loss.
        """
        return self._evaluate(lambda: Given(left, right, Aligned()), engine, group)


def _one_by_one(xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
    """Each listed positive against each negative: softplus(negative − positive)."""
    positive, share, negative = pair.take(s), pair.share, pair.negatives(s, -float("inf"))

    def of_one(k: Any, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        losses, weight, pull = so_far
        odds = negative - positive[:, k, None]
        push = times(xp, share[:, k, None], pair.weigh(sigmoid(xp, odds)))
        losses = losses + times(xp, share[:, k], xp.sum(pair.weigh(softplus(xp, odds)), axis=1))
        return losses, weight + push, add_column(pull, k, -xp.sum(push, axis=1))

    start = (xp.sum(xp.zeros_like(negative), axis=1), xp.zeros_like(negative), xp.zeros_like(positive))
    losses, weight, pull = fold(xp, positive.shape[1], of_one, start)
    return losses, pair.add(weight, pull)
