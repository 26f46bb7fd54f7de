"""Triplet loss: every anchor nearer to its positives than to its negatives, by a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nearfar._arrays import (
    Array,
    Namespace,
    add_column,
    add_columns,
    argmax,
    argmin,
    fold,
    relu,
    sigmoid,
    softplus,
    step,
    take_columns,
    times,
    where,
    zeros,
)
from nearfar._errors import InputError
from nearfar.engine import Engine, Given, Task
from nearfar.engine.picked import PickedPairs, Picks, picked_pairs
from nearfar.losses.base import PairLoss
from nearfar.losses.beyond import Beyond
from nearfar.losses.inputs import expect_alike
from nearfar.losses.triplet_sums import triplet_sums
from nearfar.measures import Distance, Euclidean
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair, Relation, Rows

INF = float("inf")
MININGS = ("all", "hard", "semihard", "easy", "easy-semihard")


@dataclass(frozen=True)
class TripletLoss(PairLoss):
    r"""Triplet loss over all triplets of a batch, or over those that mining selects.

    .. math::
        \ell_{apn} = \max(d_{ap} - d_{an} + m, 0) \quad\text{or, soft,}\quad \log(1 + e^{d_{ap} - d_{an} + m})

    The mean over all triplets that ``mining`` selects, those that rest at 0 included:

    - ``"all"``: every anchor, positive, negative; exact in one pass over the table, never a cube.
    - ``"hard"``: each anchor's farthest positive and nearest negative.
    - ``"semihard"``: each anchor and positive with the nearest negative farther than the positive, else the farthest
      negative.
    - ``"easy"``: each anchor's nearest positive and nearest negative.
    - ``"easy-semihard"``: its nearest positive and, as in semi-hard, the nearest negative farther than that.

    Args:
        margin: :math:`m`, in the unit of the distance.
        mining: One of the above.
        soft: Softplus instead of the hinge; Hermans' soft margin is ``TripletLoss(margin=0, soft=True)``.
        active_only: Mean over the triplets above 0 (other libraries' default; it rises while training succeeds).
        swap: Of given triplets, the negative's distance is that to the anchor or to the positive, whichever is less.
        measure: A distance. FaceNet's loss is ``SquaredEuclidean()`` on unit vectors.

    Raises:
        InputError: An unknown mining, a margin that is not a number, or a similarity as measure; ``swap`` with a
            labelled batch, whose table does not hold positive and negative side by side.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> anchor, positive, negative = np.array([[0.0, 0.0]]), np.array([[0.3, 0.4]]), np.array([[0.0, 0.6]])
        >>> float(nf.TripletLoss(margin=0.2).triplets(anchor, positive, negative).round(4))  # 0.5 - 0.6 + 0.2
        0.1

    Memory: a strip of the table and each anchor's positives.

    References:
        Schroff et al., "FaceNet", CVPR 2015, eq. (1)–(4) (squared distances, semi-hard); Hermans et al., "In Defense
        of the Triplet Loss", 2017, eq. (5), (6) (hard, all; distances not squared, as here); Xuan et al., "Improved
        Embeddings with Easy Positive Triplet Mining", WACV 2020 (which mines for a softmax loss); Balntas et al.,
        "Learning local feature descriptors with triplets", BMVC 2016 (anchor swap).
    """

    margin: float = 0.2
    mining: str = "all"
    soft: bool = False
    active_only: bool = False
    swap: bool = False
    measure: Distance = Euclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Mining and margin."""
        if self.mining not in MININGS:
            raise InputError(f"expected mining to be one of {MININGS}, got {self.mining!r}; choose one")
        if not abs(self.margin) < INF:
            raise InputError(f"expected a finite margin, got {self.margin}; give it in the unit of the distance")
        if self.soft and self.active_only:
            raise InputError("expected active_only with the hinge, got soft=True; every soft triplet is active")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum of each anchor's triplets."""
        if self.swap:
            return self._swapped(xp, s)
        if self.mining != "all":
            picks, weight = self.pick(xp, s, pair), xp.zeros_like(s)
            weight = add_columns(weight, picks.near, picks.slope)
            return picks.losses, add_columns(weight, picks.far, -picks.slope)
        near = where(xp, pair.weight > 0, pair.take(s), -INF)
        far = pair.negatives(s, INF)
        loss, push, pull = triplet_sums(xp, near, pair.weight, far, pair, self.margin, self.soft)
        push *= -1
        return loss, pair.add(push, pull)

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> PickedPairs | None:
        """Of mined triplets, whose gradient has a list of pairs for each anchor."""
        return None if self.mining == "all" else picked_pairs(self, xp, bound, sides)

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each selected triplet is a term."""
        if self.swap:
            # Each triplet stands in two rows.
            slope = weight[: weight.shape[0] // 2, 0]
            half = (slope if self.active_only and not self.soft else xp.ones_like(slope)) / 2
            return xp.concat([half, half], axis=0)
        positives, negatives = pair.positive_count, pair.negative_count
        if self.active_only:
            counted = (pair.weight > 0) & (negatives > 0)
            return xp.sum(where(xp, counted, pair.take(weight), 0.0), axis=1)
        if self.mining == "all":
            return positives * negatives
        exists = xp.astype(negatives > 0, weight.dtype)
        return exists * (positives if self.mining == "semihard" else xp.astype(positives > 0, weight.dtype))

    def picked_terms(self, xp: Namespace, pair: Pair, slope: Array) -> Array:
        """As :meth:`terms`, of picked triplets."""
        if not self.active_only:
            return self.terms(xp, pair, pair.weight)
        both = (pair.positive_count > 0) & (pair.negative_count > 0)
        return xp.sum(where(xp, both, slope, 0.0), axis=1)

    def triplets(
        self, anchor: Array, positive: Array, negative: Array, *, engine: Engine = "auto", group: Any = None
    ) -> Array:
        """The loss of given triplets.

        Args:
            anchor: Shape (triplets, features).
            positive: Shape (triplets, features).
            negative: Shape (triplets, features).
            engine: Accepted for uniformity; given triplets make no table.
            group: Ranks over whose triplets the mean is taken.

        Returns:
            The mean over triplets.
        """

        def given() -> Given:
            xp = expect_alike(anchor=anchor, positive=positive, negative=negative)
            if self.swap:
                return stacked_pairs(xp, (anchor, positive), (anchor, negative), (positive, negative))
            others = xp.stack([positive, negative], axis=1)
            first = np.tile(np.asarray([[1.0, 0.0]]), (anchor.shape[0], 1))
            return Given(anchor, others, Rows(first, 1 - first))

        return self._evaluate(given, engine, group)

    def _one(self, xp: Namespace, difference: Array) -> tuple[Array, Array]:
        """Loss of triplets and its derivative by ``d_ap − d_an``; overwrites them."""
        difference += self.margin
        if self.soft:
            return softplus(xp, difference), sigmoid(xp, difference)
        value = relu(xp, difference)
        return value, step(xp, xp.asarray(value, copy=True))

    def pick(self, xp: Namespace, d: Array, pair: Pair) -> Picks:
        """The triplets that mining selects; overwrites ``d``."""
        if pair.index.shape[1] == 0:
            return Picks(xp.sum(pair.weight, axis=1), pair.index, pair.index, pair.weight)
        return self._semihard(xp, d, pair) if self.mining == "semihard" else self._one_each(xp, d, pair)

    def _one_each(self, xp: Namespace, d: Array, pair: Pair) -> Picks:
        """One positive and one negative an anchor."""
        easy = self.mining != "hard"
        inside = where(xp, pair.weight > 0, pair.take(d), INF if easy else -INF)
        place = (argmin if easy else argmax)(xp, inside)
        positive, near = take_columns(xp, inside, place), take_columns(xp, pair.index, place)
        if self.mining == "easy-semihard":
            far, found = Beyond(xp, d, pair).of(positive)
        else:
            outside = pair.negatives(d, INF)
            far = argmin(xp, outside)
            found = take_columns(xp, outside, far)
        loss, slope = self._one(xp, positive - found)
        return Picks(loss, near, far, slope)

    def _semihard(self, xp: Namespace, d: Array, pair: Pair) -> Picks:
        positives, others = pair.take(d), Beyond(xp, d, pair)

        def one(r: Any, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            loss, far, slopes = sums
            counted, positive = pair.weight[:, r, None], positives[:, r, None]
            other, found = others.of(positive)
            value, slope = self._one(xp, positive - found)
            loss += times(xp, counted, value)
            return loss, add_column(far, r, other[:, 0]), add_column(slopes, r, times(xp, counted, slope)[:, 0])

        start = zeros(xp, (d.shape[0], 1), d), xp.zeros_like(pair.index), zeros(xp, pair.index.shape, d)
        loss, far, slope = fold(xp, pair.index.shape[1], one, start)
        return Picks(loss, pair.index, far, slope)

    def _swapped(self, xp: Namespace, d: Array) -> tuple[Array, Array]:
        """Half of each triplet's loss at each of its two rows, as :func:`stacked_pairs` lays them out."""
        (near, far), other = (d[: d.shape[0] // 2, k : k + 1] for k in (0, 1)), d[d.shape[0] // 2 :, :1]
        own = ~(other < far)
        loss, slope = self._one(xp, near - xp.where(own, far, other))
        none = xp.zeros_like(slope)
        rows = xp.concat([slope, -where(xp, own, slope, 0.0)], axis=1)
        swapped = xp.concat([-where(xp, ~own, slope, 0.0), none], axis=1)
        return xp.concat([loss, loss], axis=0) / 2, xp.concat([rows, swapped], axis=0)

    def _task(self, anchors: Array, references: Array | None, relation: Relation | Rows, both: bool = False) -> Task:
        if self.swap and not isinstance(relation, Rows):
            raise InputError(
                "expected given triplets with swap=True, got a batch; call loss.triplets(anchor, positive, negative)"
            )
        return super()._task(anchors, references, relation, both)


def stacked_pairs(xp: Namespace, *pairs: tuple[Array, Array]) -> Given:
    """Three pairs of rows an item, two of them of one anchor, as a table of two columns.

    Row i holds the first and the second pair, row items + i the third, twice.
    """
    (anchor, one), (_, two), (other, three) = pairs
    references = xp.concat([xp.stack([one, two], axis=1), xp.stack([three, three], axis=1)], axis=0)
    return Given(xp.concat([anchor, other], axis=0), references, Rows(*np.zeros((2, 2 * anchor.shape[0], 2))))
