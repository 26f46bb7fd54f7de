"""Log-sum-exp losses on a GPU without a table in memory: the executors over :mod:`.kernels`.

Import it where it is used: it needs triton. Memory: a few numbers an item beside the gradient, and for
:class:`FusedPooled` the lists of positives.
"""

from __future__ import annotations

import torch

from nearfar._arrays import times
from nearfar.engine.rules import Pooled
from nearfar.engine.sums import Ran
from nearfar.measures import Dot
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation
from nearfar.relations.labels import BoundLabels
from nearfar.torch.kernels import DTYPES, LN_2, Blocks, Table

# Beyond so many features the table would be made again; longer lists of positives cost more than the table saves.
FEATURES, LONGEST = 256, 64


def executor(
    loss: Pooled, scale: float, bound: BoundRelation, sides: tuple[Prepared, Prepared], by_class: bool = False
) -> FusedSoftmax | FusedPooled | None:
    """The kernels for this table where they do it; None where strips must.

    Args:
        loss: A pooled loss whose exponent is ``scale`` times the similarity.
        scale: That number, 1/τ.
        bound: The relation.
        sides: The prepared rows of both sides, on a GPU; one and the same for a batch against itself.
        by_class: Whether the loss is the supervised contrastive one, whose positives need no lists.
    """
    left, right = sides
    if not isinstance(bound, BoundLabels) or not (bound.is_self or bound.aligned) or not isinstance(loss.measure, Dot):
        return None
    if left.rows.dtype not in DTYPES or left.rows.shape[1] > FEATURES:
        return None
    if by_class and bound.is_self:
        return FusedSoftmax(1 / scale, bound, left)
    if bound.longest > LONGEST:
        return None
    return FusedPooled(loss, scale, bound, left, None if bound.is_self else right)


class FusedSoftmax:
    r"""The supervised contrastive loss of a batch against itself, positives by sums over classes.

    .. math::
        \ell_i = L_i - \frac{s_i}{\tau P_i} \cdot (C_i - s_i), \qquad
        \frac{\partial}{\partial s_i} \sum_k q_k \ell_k = \frac1\tau \Big( \sum_{j \ne i} (q_i p_{ij} + q_j p_{ji}) s_j
        - \frac{q_i}{P_i} (C_i - s_i) - \sum_{k \in c_i, k \ne i} \frac{q_k}{P_k} s_k \Big)

    with :math:`s_i` the prepared rows, :math:`C_i` the sum over i's class, :math:`p_{ij} = e^{s_i s_j / \tau - L_i}`.
    No list or mask of positives, however large the classes. 3 units for up to 256 features, 1 more for each
    further 256.

    Args:
        temperature: τ.
        bound: The labels of a batch against itself.
        side: The prepared rows, on a GPU.
        blocks: How the kernels cut the table.
    """

    def __init__(self, temperature: float, bound: BoundLabels, side: Prepared, blocks: Blocks | None = None) -> None:
        self.temperature, self.bound = temperature, bound
        self.rows: torch.Tensor = side.rows.to(torch.float32)
        self.table = Table(side.rows, side.rows, 1 / temperature, "self", blocks=blocks or Blocks())

    def run(self, gradient: bool, upstream: torch.Tensor | None) -> Ran:
        """Losses, terms (1 with a positive) and the gradient of ``Σ upstream · loss``."""
        count = self.bound.positives.to(torch.float32)
        share = torch.where(count > 0, 1 / count, 0.0)
        lse, others = self.table.row_lse(), self._class_sums(self.rows) - self.rows
        losses = lse * LN_2 - (self.rows * others).sum(1) * share / self.temperature
        losses, terms = torch.where(count > 0, losses, 0.0), (count > 0).to(torch.float64)
        if not gradient:
            return Ran(losses, terms, self.rows)
        factor = _each(terms, upstream)
        grad = self.table.row_gradient((lse, factor), (lse, factor))
        pulled = (factor * share)[:, None]
        mine = pulled * self.rows
        grad -= pulled * others + self._class_sums(mine) - mine
        return Ran(losses, terms, grad / self.temperature)

    def _class_sums(self, rows: torch.Tensor) -> torch.Tensor:
        """For each item the sum over its class; index_put_ sorts, so it has no atomics."""
        first: torch.Tensor = self.bound.first
        return torch.zeros_like(rows).index_put_((first,), rows, accumulate=True)[first]


class FusedPooled:
    """A loss of the positives and of the log-sum-exp over the negatives, on equal labels or aligned rows.

    For a batch against itself 3 units for up to 256 features; for two aligned batches, asked in both directions and
    averaged, 6. The loss itself sees the listed positives and the pool only.

    Args:
        loss: A pooled loss whose exponent is ``scale`` times the similarity.
        scale: That number, 1/τ.
        bound: The labels of a batch against itself, or aligned rows.
        left: The prepared rows, on a GPU.
        right: The prepared rows of the other batch; None for a batch against itself.
        blocks: How the kernels cut the table.
    """

    def __init__(
        self,
        loss: Pooled,
        scale: float,
        bound: BoundLabels,
        left: Prepared,
        right: Prepared | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        self.loss, self.scale, self.pair, self.xp = loss, scale, bound.strip(0, left.rows.shape[0]), bound.xp
        self.both, y = right is not None, (left if right is None else right).rows
        self.table = Table(
            left.rows, y, scale, "self" if self.both else "class", bound.own, bound.own, blocks=blocks or Blocks()
        )
        self.x, self.y = left.rows.to(torch.float32), y.to(torch.float32)

    def run(self, gradient: bool, upstream: torch.Tensor | None) -> Ran:
        """Losses, terms and the gradients of ``Σ upstream · mean``."""
        xp, loss, pair = self.xp, self.loss, self.pair
        terms = loss.terms(xp, pair, pair.weight).reshape(-1).to(torch.float64)
        tables = (self.table, self.table.turned()) if self.both else (self.table,)
        each, positive = _each(terms, upstream) / len(tables), self._positives()
        losses, by_positive = torch.zeros_like(each), torch.zeros_like(positive)
        pools: list[tuple[torch.Tensor, torch.Tensor]] = []
        for table in tables:
            lse = table.row_lse()
            value, by_pool, own = loss.combine(xp, positive, (lse * LN_2)[:, None], pair)
            losses += value.reshape(-1) / len(tables)
            by_positive += times(xp, each[:, None], own)
            pools.append((lse, times(xp, each, by_pool[:, 0]) * self.scale))
        losses = torch.where(terms > 0, losses, 0.0)
        if not gradient:
            return Ran(losses, terms, self.x, self.y if self.both else None)
        left = self.table.row_gradient(pools[0], pools[-1])
        right = tables[-1].row_gradient(pools[-1], pools[0]) if self.both else left
        self._pull(by_positive, left, right)
        return Ran(losses, terms, left, right if self.both else None)

    def _positives(self) -> torch.Tensor:
        """The similarity at the listed positives, one column of the lists at a time."""
        columns = [(self.x * self.y[k]).sum(1) for k in self.pair.index.T]
        return torch.stack(columns, 1) if columns else self.x[:, :0]

    def _pull(self, weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        """Add the gradients of both sides' rows for the weights of the listed positives."""
        for k, w in zip(self.pair.index.T, weight.T, strict=True):
            left += w[:, None] * self.y[k]
            right.index_put_((k,), w[:, None] * self.x, accumulate=True)


def _each(terms: torch.Tensor, upstream: torch.Tensor | None) -> torch.Tensor:
    """What stands before each anchor's sum of terms."""
    if upstream is None:
        return (terms > 0).to(torch.float32)
    return torch.where(terms > 0, upstream / torch.where(terms > 0, terms, 1.0), 0.0).to(torch.float32)
