"""Noise-contrastive estimation and negative sampling: a word beside its contexts and beside drawn ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, as_like, expect_matrix, namespace, sigmoid, softplus, zeros
from nearfar._errors import ShapeError
from nearfar.engine import Engine, Given
from nearfar.engine.half_tiles import ApartTiles, apart_tiles
from nearfar.engine.rules import apart
from nearfar.losses.base import PairLoss
from nearfar.measures import Dot, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair, Rows


@dataclass(frozen=True)
class NoiseContrastiveLoss(PairLoss):
    r"""Noise-contrastive estimation (Gutmann 2010, Mnih 2013); without noise, negative sampling (Mikolov 2013).

    With one true context p, drawn contexts n, and :math:`q` how often the noise is expected to draw a context
    (its probability times the number of draws),

    .. math::
        \ell_i = \log\big(1 + e^{-(s_{ip} - \log q_p)}\big) + \sum_n \log\big(1 + e^{s_{in} - \log q_n}\big)

    and the mean over anchors that have a pair. Negative sampling is :math:`q = 1`. Called with labels, negatives are
    the other classes of the batch and :math:`q = 1`.

    Args:
        measure: A similarity; the model's log-score of the pair.

    Raises:
        InputError: A distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> word, context = np.array([[1.0, 0.0]]), np.array([[2.0, 1.0]])
        >>> drawn = np.array([[[0.0, 1.0], [-1.0, 0.0]]])  # two for the one word
        >>> float(nf.NoiseContrastiveLoss().samples(word, context, drawn).round(4))
        1.1333

    Memory: O(anchors · draws · features) with :meth:`samples`, else a strip of the table.

    References:
        Gutmann & Hyvärinen, "Noise-contrastive estimation", AISTATS 2010; Mnih & Kavukcuoglu, "Learning word embeddings
        efficiently with noise-contrastive estimation", NIPS 2013; Mikolov et al., "Distributed Representations of Words
        and Phrases and their Compositionality", NIPS 2013, eq. (4).
    """

    measure: Similarity = Dot()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    reach: ClassVar[float] = float("inf")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's pairs."""
        return apart(self, xp, s, pair)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> ApartTiles | None:
        """Half tiles."""
        return apart_tiles(self, xp, bound, sides)

    def factors_of(self, xp: Namespace, pair: Pair, like: Array) -> tuple[float, float]:
        """Positives and negatives count alike."""
        return 1.0, 1.0

    def positive(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """Log-loss of the answer "from the data"."""
        return softplus(xp, -s), -sigmoid(xp, -s)

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """Log-loss of the answer "from the noise"."""
        return softplus(xp, s), sigmoid(xp, s)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """1 where the anchor has a pair."""
        return xp.astype(pair.positive_count + pair.negative_count > 0, weight.dtype)

    def samples(
        self,
        anchor: Array,
        positive: Array,
        negatives: Array,
        *,
        noise: Any = None,
        engine: Engine = "auto",
        group: Any = None,
    ) -> Array:
        """The loss of anchors with their own draws.

        Args:
            anchor: Shape (items, features).
            positive: The true context of each; shape (items, features).
            negatives: The draws of each; shape (items, draws, features).
            noise: Log-probability of the positive and of each draw under the noise; shape (items, 1 + draws). None:
                negative sampling.
            engine: Accepted for uniformity; given rows make no table.
            group: Ranks over whose items the mean is taken.
        """
        xp = namespace(anchor=anchor, positive=positive, negatives=negatives)
        expect_matrix("anchor", anchor)
        (items, features), draws = anchor.shape, negatives.shape[1] if negatives.ndim == 3 else 0
        if tuple(positive.shape) != (items, features) or tuple(negatives.shape) != (items, draws, features):
            raise ShapeError(
                f"expected positive of shape {(items, features)} and negatives of shape ({items}, draws, {features}), "
                f"got {tuple(positive.shape)} and {tuple(negatives.shape)}; give each anchor its own draws"
            )
        rows = xp.concat([positive[:, None, :], negatives], axis=1)
        true = xp.concat([xp.ones_like(anchor[:, :1]), zeros(xp, (items, draws), anchor)], axis=1)
        rule = self if noise is None else _AgainstNoise(self, _expected(xp, noise, anchor, (items, 1 + draws)))
        return rule._evaluate(lambda: Given(anchor, rows, Rows(true, 1 - true)), engine, group)


@dataclass(frozen=True, eq=False)
class _AgainstNoise(PairLoss):
    """The loss of similarities less the log of how often the noise draws the pair."""

    loss: NoiseContrastiveLoss
    noise: Array

    kind: ClassVar[str] = "similarity"

    @property
    def measure(self) -> Similarity:  # type: ignore[override]
        """That of the loss."""
        return self.loss.measure

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """As of the loss."""
        return self.loss.strip(xp, s - self.noise, pair)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """As of the loss."""
        return self.loss.terms(xp, pair, weight)


def _expected(xp: Namespace, noise: Any, like: Array, shape: tuple[int, int]) -> Array:
    """Log of how often the noise is expected to draw each context."""
    given = as_like(xp, noise, like, xp.float64 if like.dtype == xp.float64 else xp.float32)
    if tuple(given.shape) != shape:
        raise ShapeError(f"expected noise of shape {shape}, got {tuple(given.shape)}; one for the positive comes first")
    return given + math.log(max(shape[1] - 1, 1))
