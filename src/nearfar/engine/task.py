"""A loss on a table: how it is prepared, which way it is run, and how sums become a mean and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nearfar._arrays import Array, Namespace, quiet, where, zeros
from nearfar.engine.peers import Peers
from nearfar.engine.rules import Executor, Rule
from nearfar.engine.strips import Sides, rows_ran, strips_ran
from nearfar.engine.sums import Ran, mean, over
from nearfar.measures.base import Similarity
from nearfar.relations import BoundRelation, Relation, Rows


@dataclass
class Outcome:
    """What running a loss gives.

    Attributes:
        value: The mean over all terms, a float64 scalar; 0 without a term.
        per_anchor: Each anchor's mean over its own terms.
        gradients: Of the anchors and the references (None for a batch against itself), as far as asked for.
        scale: Σ ∂value/∂measure · measure, if asked for.
        shift: Σ ∂value/∂measure over each anchor's row, if asked for.
    """

    value: Array
    per_anchor: Array
    gradients: tuple[Array | None, Array | None] = (None, None)
    scale: Array | None = None
    shift: Array | None = None


@dataclass(frozen=True)
class Task:
    """A loss on a table: everything but how it is run.

    ``anchors`` and ``references`` are working copies: off the autograd graph, float32 or float64. ``both`` asks the
    question in both directions and averages. ``moments`` names what else to return: "scale", "shift". ``peers`` are
    the processes that share the table.
    """

    loss: Rule
    xp: Namespace
    anchors: Array
    references: Array | None
    relation: Relation | Rows
    both: bool = False
    moments: tuple[str, ...] = ()
    peers: Peers | None = None

    def run(self, height: int | None, gradient: bool, upstream: Array | None = None) -> Outcome:
        """Run over the table in strips of ``height`` anchors; None chooses the way.

        ``upstream`` is the gradient of each anchor's own loss; without it the gradient is that of the mean.
        """
        with quiet():
            if isinstance(self.relation, Rows):
                ran = rows_ran(self, self.relation, upstream)
                return self._outcome(ran, None, gradient, upstream)
            relation, rows, columns = self.relation.kept(self.xp, self.anchors, self.references)
            if rows is None:
                return self._on_table(relation, height, gradient, upstream)
            return self._on_kept(relation, rows, columns, height, gradient, upstream)

    def _on_kept(
        self,
        relation: Relation,
        rows: Array,
        columns: Array | None,
        height: int | None,
        gradient: bool,
        upstream: Array | None,
    ) -> Outcome:
        """The outcome of the kept items in the places of all items."""
        references = self.references
        if references is not None and columns is not None:
            references = references[columns]
        task = Task(self.loss, self.xp, self.anchors[rows], references, relation, self.both, self.moments, self.peers)
        kept = task._on_table(relation, height, gradient, upstream if upstream is None else upstream[rows])
        return Outcome(
            kept.value,
            _spread(self.xp, kept.per_anchor, rows, self.anchors.shape[0]),
            (
                _spread(self.xp, kept.gradients[0], rows, self.anchors.shape[0]),
                kept.gradients[1]
                if columns is None or self.references is None
                else _spread(self.xp, kept.gradients[1], columns, self.references.shape[0]),
            ),
            kept.scale,
            None if kept.shift is None else _spread(self.xp, kept.shift, rows, self.anchors.shape[0]),
        )

    def _on_table(self, relation: Relation, height: int | None, gradient: bool, upstream: Array | None) -> Outcome:
        xp, measure = self.xp, self.loss.measure
        bound = relation.bind(xp, self.anchors, self.references)
        middle = centre(xp, self.anchors if self.references is None else self.references) if measure.centres else None
        a = measure.prepare(xp, self.anchors, middle)
        b = a if self.references is None else measure.prepare(xp, self.references, middle)
        ran = self._fast(bound, (a, b), gradient, upstream) if height is None else None
        if ran is None:
            ran = strips_ran(self, bound, (a, b), height, gradient, upstream)
            if self.both:
                ran = ran.averaged_with(strips_ran(self, bound, (b, a), height, gradient, upstream))
        return self._outcome(ran, (a, b), gradient, upstream)

    def _fast(self, bound: BoundRelation, sides: Sides, gradient: bool, upstream: Array | None) -> Ran | None:
        """By the loss's executor, where it has one that gives all that is asked for."""
        by_product = isinstance(self.loss.measure, Similarity) and "shift" not in self.moments
        if self.peers is not None or (self.moments and not by_product) or not (sides[0] is sides[1] or self.both):
            return None
        executor: Executor | None = self.loss.executor(self.xp, bound, sides)
        return None if executor is None else executor.run(gradient, upstream)

    def _outcome(self, ran: Ran, sides: Sides | None, gradient: bool, upstream: Array | None) -> Outcome:
        """Means from sums; the gradients carried back to the embeddings."""
        xp, peers, measure = self.xp, self.peers, self.loss.measure
        total, value = xp.sum(ran.terms), xp.sum(xp.astype(ran.losses, xp.float64))
        if peers is not None:
            total, value = peers.total(xp.stack([total, value]))
        outcome = Outcome(*mean(xp, value, total, ran))
        if not gradient:
            return outcome
        factor = None if upstream is not None else over(xp, total, 1 if peers is None else peers.size)
        outcome.gradients = ran.gradients(xp, measure, sides, factor, peers)
        if self.moments:
            outcome.scale, outcome.shift = ran.moments(xp, sides, factor)
        return outcome


def _spread(xp: Namespace, kept: Array | None, places: Array, count: int) -> Any:
    """Kept items' values in the places of all items, 0 elsewhere."""
    if kept is None:
        return None
    whole = zeros(xp, (count, *kept.shape[1:]), kept)
    whole[places] = kept
    return whole


def centre(xp: Namespace, rows: Array) -> Array | None:
    """The mean row where it is large beside the spread, else 0."""
    if rows.shape[0] == 0:
        return None
    mean_row = xp.mean(rows, axis=0)
    offset, spread = xp.sum(mean_row * mean_row), xp.sum(xp.var(rows, axis=0))
    # A small offset costs less than the rounding of taking it off.
    return where(xp, xp.isfinite(mean_row) & (offset > 4 * spread), mean_row, 0.0)


__all__ = ["Outcome", "Task"]
