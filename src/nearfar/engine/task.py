"""A loss on a table: how it is prepared, which way it is run, and how sums become a mean and its gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nearfar._arrays import Array, Namespace, on_host, quiet, where, zeros
from nearfar.engine.columns import Columns, Source
from nearfar.engine.peers import Peers
from nearfar.engine.rules import Executor, Rule
from nearfar.engine.strips import Sides, both_ran, one_strip, rows_ran, strips_ran
from nearfar.engine.sums import Ran, mean
from nearfar.measures.base import Similarity
from nearfar.relations import BoundRelation, Relation, Rows
from nearfar.relations.labels import BoundLabels


@dataclass
class Outcome:
    """What running a loss gives.

    Attributes:
        value: The mean over all terms, a float64 scalar; 0 without a term.
        per_anchor: Each anchor's mean over its own terms; None where the gradient was asked for.
        gradients: Of the anchors and the references (None for a batch against itself), as far as asked for.
        scale: Σ ∂value/∂measure · measure, if asked for.
        shift: Σ ∂value/∂measure over each anchor's row, if asked for.
    """

    value: Array
    per_anchor: Array | None
    gradients: tuple[Array | None, Array | None] = (None, None)
    scale: Array | None = None
    shift: Array | None = None


def _means(xp: Namespace, ways: list[Ran]) -> Array:
    """The mean over each anchor's own terms, averaged over the directions."""
    each = [xp.astype(ran.losses, xp.float64) / where(xp, ran.terms > 0, ran.terms, 1.0) for ran in ways]
    return xp.astype(sum(each[1:], each[0]) / len(each), ways[0].losses.dtype)


@dataclass(frozen=True)
class Task:
    """A loss on a table: everything but how it is run.

    ``anchors`` and ``references`` are working copies: off the autograd graph, float32 or float64. ``both`` asks the
    question in both directions and averages. ``moments`` names what else to return: "scale", "shift". ``peers`` are
    the processes that share the table. ``origin`` is taken off the measures of each anchor, one number each, before
    the loss sees them. ``columns`` are where the references come from, block by block, one for each direction; then
    ``references`` are those that lie here.
    """

    loss: Rule
    xp: Namespace
    anchors: Array
    references: Array | None
    relation: Relation | Rows
    both: bool = False
    moments: tuple[str, ...] = ()
    peers: Peers | None = None
    origin: Array | None = None
    columns: tuple[Source, ...] = ()

    def run(self, height: int | None, gradient: bool, upstream: Array | None = None) -> Outcome:
        """Run over the table in strips of ``height`` anchors; None chooses the way.

        ``upstream`` is the gradient of each anchor's own loss; without it the gradient is that of the mean.
        """
        with quiet():
            if self.columns:
                return self._by_columns(height, gradient)
            if isinstance(self.relation, Rows):
                ran = rows_ran(self, self.relation, upstream)
                return self._outcome([ran], None, gradient, upstream)
            relation, rows, columns = self.relation.kept(self.xp, self.anchors, self.references)
            if rows is None:
                return self._on_table(relation, height, gradient, upstream)
            return self._on_kept(relation, rows, columns, height, gradient, upstream)

    def _by_columns(self, height: int | None, gradient: bool) -> Outcome:
        xp, measure = self.xp, self.loss.measure
        middle = centre(xp, self.anchors) if measure.centres else None
        a = measure.prepare(xp, self.anchors, middle)
        b = a if self.references is None else measure.prepare(xp, self.references, middle)
        ways = [
            Columns(self, source, sides, lambda rows: measure.prepare(xp, rows, middle), height).ran(gradient)
            for source, sides in zip(self.columns, ((a, b), (b, a)), strict=False)
        ]
        return self._outcome([*ways[:1], *(way.turned() for way in ways[1:])], (a, b), gradient, None)

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
        task = replace(
            self,
            anchors=self.anchors[rows],
            references=references,
            relation=relation,
            origin=None if self.origin is None else self.origin[rows],
        )
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
        if self.peers is not None and self.peers.places[0] is None and isinstance(bound, BoundLabels):
            # The counts are those of this process's anchors.
            bound.totals = tuple(self.peers.total(xp.stack(bound.totals)))
        middle = centre(xp, self.anchors if self.references is None else self.references) if measure.centres else None
        a = measure.prepare(xp, self.anchors, middle)
        b = a if self.references is None else measure.prepare(xp, self.references, middle)
        ran = self._fast(bound, (a, b), gradient, upstream) if height is None else None
        if ran is not None:
            return self._outcome([ran], (a, b), gradient, upstream)
        if self.both and height is None and self._is_plain() and one_strip(self.loss, a, b):
            return self._outcome(both_ran(self, bound, (a, b), gradient, upstream), (a, b), gradient, upstream)
        ways = [strips_ran(self, bound, (a, b), height, gradient, upstream)]
        if self.both:
            ways.append(strips_ran(self, bound, (b, a), height, gradient, upstream).turned())
        return self._outcome(ways, (a, b), gradient, upstream)

    def _fast(self, bound: BoundRelation, sides: Sides, gradient: bool, upstream: Array | None) -> Ran | None:
        """By the loss's executor, where it has one that gives all that is asked for."""
        if not self._is_plain() or not (sides[0] is sides[1] or self.both):
            return None
        executor: Executor | None = self.loss.executor(self.xp, bound, sides)
        return None if executor is None else executor.run(gradient, upstream)

    def _is_plain(self) -> bool:
        """Whether one process asks for no more than the table's values and gradients give by themselves."""
        by_product = isinstance(self.loss.measure, Similarity) and "shift" not in self.moments
        return self.peers is None and self.origin is None and (by_product or not self.moments)

    def _outcome(self, ways: list[Ran], sides: Sides | None, gradient: bool, upstream: Array | None) -> Outcome:
        """Means from sums; the gradients carried back to the embeddings; the average of one or two directions."""
        xp, peers = self.xp, self.peers
        sums = [s for ran in ways for s in (xp.sum(ran.terms), xp.sum(ran.losses, dtype=xp.float64))]
        if peers is not None:
            sums = list(peers.total(xp.stack(sums)))
        share = 1 if peers is None else peers.size
        means = [mean(xp, total, count, share) for count, total in zip(sums[::2], sums[1::2], strict=True)]
        value = means[0][0] if len(ways) == 1 else (means[0][0] + means[1][0]) / 2
        outcome = Outcome(value, None if gradient else _means(xp, ways))
        if not gradient:
            return outcome
        factors = [None if upstream is not None else factor for _, factor in means]
        ran, factor = (ways[0], factors[0]) if len(ways) == 1 else (ways[0].halves(xp, factors, ways[1]), None)
        if self.moments:
            outcome.scale, outcome.shift = ran.moments(xp, sides, factor)
        # Last, since it takes the sums apart.
        outcome.gradients = ran.gradients(xp, self.loss.measure, sides, factor, peers)
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
    mean_row = xp.sum(rows, axis=0) / rows.shape[0]
    offset = xp.sum(mean_row * mean_row)
    spread = xp.sum(rows * rows) / rows.shape[0] - offset
    # A small offset costs less than the rounding of taking it off.
    if on_host(rows) and not bool(offset > 4 * spread):
        return None
    return where(xp, xp.isfinite(mean_row) & (offset > 4 * spread), mean_row, 0.0)


__all__ = ["Outcome", "Task"]
