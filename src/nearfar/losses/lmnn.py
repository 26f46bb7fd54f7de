"""Large margin nearest neighbour: each item's target neighbours near, and no impostor within a margin of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nearfar._arrays import Array, Namespace, add_columns, at_least, take_columns, times, where
from nearfar._errors import InputError, expect_whole
from nearfar.losses.base import PairLoss
from nearfar.losses.triplet_sums import triplet_sums
from nearfar.measures import Distance, SquaredEuclidean
from nearfar.relations import Mask, Pair

INF = float("inf")


@dataclass(frozen=True)
class LMNNLoss(PairLoss):
    r"""Large margin nearest neighbour (Weinberger and Saul 2009).

    .. math::
        \ell_{ij} = (1 - \mu) \, d_{ij} + \mu \sum_{l \in N_i} \max(d_{ij} - d_{il} + m, 0)

    for every target neighbour j of i: the nearest items of its class. The mean over these pairs; the paper's objective
    is their sum. Targets are chosen anew from the embeddings of each batch; the paper fixes them once, in the space of
    the inputs: ``loss(embeddings, loss.targets(inputs, labels))``.

    Args:
        neighbours: How many target neighbours an item has, fewer where its class has fewer.
        margin: :math:`m`, in the unit of the (squared) distance.
        push: :math:`\mu` in [0, 1], the share of the impostors.
        measure: A distance; the paper's is the squared one.

    Raises:
        InputError: Hyper-parameters out of range, or a similarity as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x = np.array([[0.0], [1.0], [1.5]])
        >>> loss = nf.LMNNLoss(neighbours=1)
        >>> float(loss(x, [0, 0, 1]))  # ((1 + 0) + (1 + 1 - 0.25 + 1)) / 4
        0.9375

    Memory: a strip of the table and each anchor's positives; the mask of fixed targets is a table.

    Reference:
        Weinberger, Saul, "Distance Metric Learning for Large Margin Nearest Neighbor Classification", JMLR 10, 2009;
        there one linear map is learned, here any embedding.
    """

    neighbours: int = 3
    margin: float = 1.0
    push: float = 0.5
    measure: Distance = SquaredEuclidean()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "distance"

    def check(self) -> None:
        """Neighbours, margin and share."""
        expect_whole("neighbours", self.neighbours, remedy="3 is usual")
        if not abs(self.margin) < INF:
            raise InputError(f"expected a finite margin, got {self.margin}; give it in the unit of the measure")
        if not 0 <= self.push <= 1:
            raise InputError(f"expected push in [0, 1], got {self.push}; 0.5 weighs targets and impostors alike")

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Sum over each anchor's targets."""
        positive = pair.take(s)
        counted = _nearest(xp, positive, pair, self.neighbours)
        pulled = xp.sum(times(xp, counted, positive), axis=1)
        near = where(xp, counted > 0, positive, -INF)
        hinges, weight, pull = triplet_sums(xp, near, counted, pair.negatives(s, INF), pair, self.margin)
        weight *= -self.push
        return (1 - self.push) * pulled + self.push * hinges, pair.add(
            weight, (1 - self.push) * counted + self.push * pull
        )

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each target is a term."""
        return where(xp, pair.positive_count <= self.neighbours, pair.positive_count, float(self.neighbours))

    def targets(self, inputs: Any, labels: Any) -> Mask:
        """Target neighbours in the space of the inputs, as the relation of a batch of the same items.

        Args:
            inputs: What is to be embedded, or an embedding to start from; shape (items, features).
            labels: One label an item.

        Returns:
            Targets as positives, items of other classes as negatives; all other pairs take part in nothing.
        """
        x, y = np.asarray(inputs, dtype=np.float64), np.asarray(labels)
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise InputError(
                f"expected inputs of shape (items, features) and a label each, got {x.shape} and {y.shape}; "
                "give both of the same batch"
            )
        same, positive = y[:, None] == y[None, :], np.zeros((len(x), len(x)))
        for i in range(len(x)):
            others = np.flatnonzero(same[i] & (np.arange(len(x)) != i))
            d = self.measure.rows(np, x[i : i + 1], x[others][None])[0]
            positive[i, others[np.argsort(d, kind="stable")[: self.neighbours]]] = 1
        return Mask(positive, ~same)


def _nearest(xp: Namespace, positive: Array, pair: Pair, count: int) -> Array:
    """The weights of each anchor's nearest positives, ``count`` together, in the order of the list; 0 elsewhere."""
    order = xp.argsort(where(xp, pair.weight > 0, positive, INF), axis=1)
    weight = take_columns(xp, pair.weight, order)
    left = at_least(xp, count - (xp.cumulative_sum(weight, axis=1) - weight), 0.0)
    return add_columns(xp.zeros_like(weight), order, xp.minimum(weight, left))
