"""Multi-similarity loss: pairs weighed by themselves and by the anchor's other pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from nearfar._arrays import Array, Namespace, above, row_max, sigmoid, softplus, times, where
from nearfar._errors import InputError
from nearfar.engine.pooled_tiles import PooledTiles, pooled_tiles
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.pools import has_any, has_both, positive_pool
from nearfar.losses.softmax import logit
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

INF = float("inf")


@dataclass(frozen=True)
class MultiSimilarityLoss(PairLoss):
    r"""Multi-similarity loss with its mining (Wang 2019).

    .. math::
        \ell_i = \frac1\alpha \log\Big(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Big)
        + \frac1\beta \log\Big(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\Big)

    over the pairs that mining keeps: a negative with :math:`s_{in} + \varepsilon > \min_p s_{ip}`, a positive with
    :math:`s_{ip} - \varepsilon < \max_n s_{in}`. The mean over anchors that have a positive and a negative; one whose
    pairs are all left out adds 0 and counts, as in the authors' code.

    Args:
        alpha: :math:`\alpha > 0`, how steeply positives weigh, in one over the unit of the similarity.
        beta: :math:`\beta > 0`, the same for negatives.
        base: :math:`\lambda`, the similarity around which both sides turn.
        epsilon: :math:`\varepsilon \ge 0` of the mining; None keeps every pair (other libraries' loss without their
            miner).
        measure: A similarity.
        one_sided: Mean over all anchors that have a pair, where one without a positive or without a negative costs what
            its other side does (with mining nothing is left of that). Else they count for nothing.

    Raises:
        InputError: Hyper-parameters out of range, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> float(nf.MultiSimilarityLoss()(x, [0, 0, 1, 1]).round(4))
        0.3394

    Memory: a strip of the table.

    Reference:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019, eq. (15);
        mining eq. (10), (11). arXiv 1904.06627
    """

    alpha: float = 2.0
    beta: float = 50.0
    base: float = 0.5
    epsilon: float | None = 0.1
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)
    one_sided: bool = False

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"base": "origin"}

    def check(self) -> None:
        """Signs and finiteness."""
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < INF:
                raise InputError(f"expected a finite {name} > 0, got {getattr(self, name)}; the paper's are 2 and 50")
        if not abs(self.base) < INF:
            raise InputError(f"expected a finite base, got {self.base}; give a similarity, 0.5 in the paper's code")
        if self.epsilon is not None and not 0 <= self.epsilon < INF:
            raise InputError(f"expected a finite epsilon >= 0, got {self.epsilon}; None turns mining off")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """A soft count of positives below the base and of negatives above it."""
        return pooled(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PooledTiles | None:
        """Half tiles; mining in both directions of two batches goes by strips."""
        return None if self.mines and sides[0] is not sides[1] else pooled_tiles(self, xp, bound, sides)

    @property
    def in_parts(self) -> bool:
        """Not with mining, which looks at an anchor's whole row first."""
        return not self.mines

    @property
    def linear(self) -> float:
        """β."""
        return self.beta

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """β times the similarity; the base is taken off the pool."""
        return logit(s, 1 / self.beta)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """Each side by its own log-sum-exp."""
        own, share = positive_pool(xp, -self.alpha * positive, pair)
        near, far = own + self.alpha * self.base, pool - self.beta * self.base
        loss = softplus(xp, near) / self.alpha + softplus(xp, far) / self.beta
        return loss, sigmoid(xp, far) / self.beta, -times(xp, share, sigmoid(xp, near))

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the anchor has a positive and a negative; with ``one_sided`` where it has either."""
        return (has_any if self.one_sided else has_both)(xp, pair, weight)

    @property
    def mines(self) -> bool:
        """With an epsilon."""
        return self.epsilon is not None

    def least(self, xp: Namespace, positive: Array, pair: Pair) -> Array:
        """The least similar positive."""
        least = -row_max(xp, where(xp, pair.weight > 0, -positive, -INF))
        return where(xp, pair.positive_count > 0, least, INF)

    def counts(self, xp: Namespace, s: Array, least: Array) -> Array:
        """Not less similar by ε; the difference first, so that a tie stays a tie beside values that would swallow ε."""
        return above(xp, s - least, -cast("float", self.epsilon))

    def hard(self, xp: Namespace, positive: Array, most: Array, pair: Pair) -> Array:
        """Not more similar by ε than the most similar negative; beside none every positive is easy."""
        easy = (positive - most >= cast("float", self.epsilon)) & (pair.weight > 0)
        return where(xp, ~easy, positive, INF)
