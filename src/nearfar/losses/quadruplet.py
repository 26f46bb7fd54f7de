"""Quadruplet loss: positive pairs shorter than negative pairs, of the same anchor and of any others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, relu, step
from nearfar._errors import InputError
from nearfar.engine import Engine, Given
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import expect_alike
from nearfar.losses.quadruplet_sums import ThreePasses
from nearfar.losses.triplet import stacked_pairs
from nearfar.measures import Distance, SquaredEuclidean
from nearfar.relations import Pair

INF = float("inf")


@dataclass(frozen=True)
class QuadrupletLoss(PairLoss):
    r"""Quadruplet loss (Chen 2017).

    .. math::
        \frac{1}{T} \sum_{i, p, n} \max(d_{ip} - d_{in} + m_1, 0)
        + \frac{1}{Q} \sum_{i, p, l, k} \max(d_{ip} - d_{lk} + m_2, 0)

    over all T triplets, and over all Q quadruplets of a positive pair (i, p) and a negative pair (l, k) whose classes
    are both others than that of i. With classes of one size it is the mean over quadruplets of the paper's two terms.
    A batch of fewer than three classes has the first term only.

    The second term compares pairs that share no item: it is counted from sorted distances, never from a list of
    quadruplets, and needs labels (or aligned rows), not a mask.

    Args:
        margin: :math:`m_1`, in the unit of the measure.
        other_margin: :math:`m_2`, smaller, so that the second term stays the weaker one. The paper sets both anew in
            each batch, 1 and ½ times the gap between the mean negative and the mean positive.
        measure: A distance; the paper squares a learned one.

    Raises:
        InputError: A margin that is not a number, a similarity as measure, or a mask as relation.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> anchor, positive, negative, other = (np.array([[v]]) for v in (0.0, 1.0, 1.0, 2.0))
        >>> loss = nf.QuadrupletLoss(margin=1.0, other_margin=0.5)
        >>> float(loss.quadruplets(anchor, positive, negative, other))  # (1 - 1 + 1) + (1 - 1 + 0.5)
        1.5

    Memory: a few strips of the table and all positive pairs.

    Reference:
        Chen et al., "Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-identification", CVPR 2017.
        arXiv 1704.01719
    """

    margin: float = 1.0
    other_margin: float = 0.5
    measure: Distance = SquaredEuclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"
    # Pairs of other anchors are not in an anchor's row: the loss runs its table itself.
    passes: ClassVar[Any] = ThreePasses

    def check(self) -> None:
        """Margins."""
        for name in ("margin", "other_margin"):
            if not abs(getattr(self, name)) < INF:
                raise InputError(
                    f"expected a finite {name}, got {getattr(self, name)}; give it in the unit of the measure"
                )

    def quadruplets(
        self,
        anchor: Array,
        positive: Array,
        negative: Array,
        other: Array,
        *,
        engine: Engine = "auto",
        group: Any = None,
    ) -> Array:
        """The loss of given quadruplets: anchor and positive of one class, negative and other of two more.

        Args:
            anchor: Shape (quadruplets, features).
            positive: Shape (quadruplets, features).
            negative: Shape (quadruplets, features).
            other: Shape (quadruplets, features).
            engine: Accepted for uniformity; given quadruplets make no table.
            group: Ranks over whose quadruplets the mean is taken.

        Returns:
            The mean over quadruplets of both terms.
        """

        def given() -> Given:
            xp = expect_alike(anchor=anchor, positive=positive, negative=negative, other=other)
            return stacked_pairs(xp, (anchor, positive), (anchor, negative), (negative, other))

        return self._evaluate(given, engine, group)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Of given quadruplets: half of each one's two terms at each of its two rows."""
        first, second = s[: s.shape[0] // 2], s[s.shape[0] // 2 :, :1]
        one = relu(xp, first[:, :1] - first[:, 1:] + self.margin)
        two = relu(xp, first[:, :1] - second + self.other_margin)
        half = (one + two) / 2
        one, two = step(xp, one), step(xp, two)
        rows = xp.concat([one + two, -one], axis=1)
        others = xp.concat([-two, xp.zeros_like(two)], axis=1)
        return xp.concat([half, half], axis=0), xp.concat([rows, others], axis=0)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Of given quadruplets: each stands in two rows."""
        return xp.ones_like(pair.positive_count) / 2
