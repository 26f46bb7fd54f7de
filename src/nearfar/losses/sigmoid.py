"""Sigmoid loss: every pair a yes-or-no question of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, sigmoid, softplus
from nearfar._errors import InputError
from nearfar.engine import Engine, Given
from nearfar.engine.half_tiles import ApartTiles, apart_tiles
from nearfar.engine.rules import apart
from nearfar.losses.base import PairLoss
from nearfar.losses.softmax import check_temperature
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import Prepared
from nearfar.relations import Aligned, BoundRelation, Pair


@dataclass(frozen=True)
class SigLIPLoss(PairLoss):
    r"""Sigmoid loss of image and text pairs (SigLIP, Zhai 2023).

    .. math::
        \ell_i = \sum_{j} \log\big(1 + e^{-z_{ij} (s_{ij} / \tau + b)}\big)

    with :math:`z = 1` for positives and −1 for negatives; the mean over anchors that have a pair, which is the sum over
    all pairs divided by the number of anchors. With labels :math:`z = 1` for equal ones.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity; the paper starts from t = 1/τ = 10.
        bias: :math:`b`; the paper starts from −10, where almost no pair is taken for a match.
        measure: A similarity.

    Raises:
        InputError: A temperature that is not positive, a bias that is not finite, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> images, texts = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> float(nf.SigLIPLoss().aligned(images, texts).round(4))  # softplus(2) + softplus(-4)
        2.1451

    Memory: a strip of the table.

    Reference:
        Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2, algorithm 1. arXiv
        2303.15343
    """

    temperature: float = 0.1
    bias: float = -10.0
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    reach: ClassVar[float] = float("inf")
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor", "bias": "offset"}

    def check(self) -> None:
        """Temperature and bias."""
        check_temperature(self.temperature)
        if not abs(self.bias) < float("inf"):
            raise InputError(f"expected a finite bias, got {self.bias}; the paper starts from -10")

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
        """Log-loss of the answer "a match"."""
        z = s / -self.temperature - self.bias
        return softplus(xp, z), sigmoid(xp, z) / -self.temperature

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """Log-loss of the answer "no match"."""
        s *= 1 / self.temperature
        s += self.bias
        slope = sigmoid(xp, s)
        slope *= 1 / self.temperature
        return softplus(xp, s), slope

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """1 where the anchor has a pair."""
        return xp.astype(pair.positive_count + pair.negative_count > 0, weight.dtype)

    def aligned(self, left: Array, right: Array, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The paper's batch: row i of the images belongs to row i of the texts.

        The table is asked once: turned around it is the same sum.

        Args:
            left: For example images; shape (items, features).
            right: For example texts; shape (items, features).
            engine: How to run it.
            group: Ranks that share the loss.
        """
        return self._evaluate(lambda: Given(left, right, Aligned()), engine, group)
