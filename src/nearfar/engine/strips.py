"""Running a loss's rule over the table of pairs, strip by strip, with the gradient in the forward pass.

One strip holds some anchors against all references; nothing of the table outlives it. The value, the gradient and
the loss of each anchor do not depend on the height of the strips but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nearfar._arrays import Array, Namespace, on_host, quiet, where, zeros
from nearfar.engine.rules import Executor, Rule
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair, Relation, Rows

# A strip and its few temporaries stay near the caches of a core with STRIP elements; with fewer rows than TALL the
# matrix products slow down, so it grows up to LARGEST for them.
STRIP, TALL, LARGEST = 1 << 18, 128, 1 << 21


@dataclass
class Outcome:
    """What running a loss gives.

    Attributes:
        value: The mean over all terms, a float64 scalar; 0 without a term.
        per_anchor: Each anchor's mean over its own terms.
        gradients: Of the anchors and the references (None for a batch against itself), as far as asked for.
    """

    value: Array
    per_anchor: Array
    gradients: tuple[Array | None, Array | None] = (None, None)


@dataclass(frozen=True)
class Task:
    """A loss on a table: everything but how it is run.

    ``anchors`` and ``references`` are working copies: off the autograd graph, float32 or float64. ``both`` asks the
    question in both directions and averages.
    """

    loss: Rule
    xp: Namespace
    anchors: Array
    references: Array | None
    relation: Relation | Rows
    both: bool = False

    def run(self, height: int | None, gradient: bool, upstream: Array | None = None) -> Outcome:
        """Run over the table in strips of ``height`` anchors; None chooses the way.

        ``upstream`` is the gradient of each anchor's own loss; without it the gradient is that of the mean.
        """
        with quiet():
            return self._run(height, gradient, upstream)

    def _run(self, height: int | None, gradient: bool, upstream: Array | None) -> Outcome:
        if isinstance(self.relation, Rows):
            return _run_rows(self, self.relation, gradient, upstream)
        relation, rows, columns = self.relation.kept(self.xp, self.anchors, self.references)
        if rows is None:
            return _run_strips(self, relation, height, gradient, upstream)
        references = self.references
        if references is not None and columns is not None:
            references = references[columns]
        task = Task(self.loss, self.xp, self.anchors[rows], references, relation, self.both)
        part = upstream if upstream is None else upstream[rows]
        return _spread(self, task._run(height, gradient, part), rows, columns)


def _spread(task: Task, kept: Outcome, rows: Array, columns: Array | None) -> Outcome:
    """The outcome of the kept items in the places of all items."""
    whole = zeros(task.xp, (task.anchors.shape[0],), task.anchors)
    whole[rows] = kept.per_anchor
    gradients: list[Array | None] = []
    for given, part, places in zip((task.anchors, task.references), kept.gradients, (rows, columns), strict=True):
        spread = part
        if part is not None and places is not None:
            spread = task.xp.zeros_like(given)
            spread[places] = part
        gradients.append(spread)
    return Outcome(kept.value, whole, (gradients[0], gradients[1]))


def _centre(xp: Namespace, rows: Array) -> Array | None:
    """The mean row where it is large beside the spread, else 0."""
    if rows.shape[0] == 0:
        return None
    mean = xp.mean(rows, axis=0)
    offset, spread = xp.sum(mean * mean), xp.sum(xp.var(rows, axis=0))
    # A small offset costs less than the rounding of taking it off.
    return where(xp, xp.isfinite(mean) & (offset > 4 * spread), mean, 0.0)


def _run_strips(task: Task, relation: Relation, height: int | None, gradient: bool, upstream: Array | None) -> Outcome:
    xp, loss = task.xp, task.loss
    bound = relation.bind(xp, task.anchors, task.references)
    centre = _centre(xp, task.anchors if task.references is None else task.references)
    a = loss.measure.prepare(xp, task.anchors, centre)
    b = a if task.references is None else loss.measure.prepare(xp, task.references, centre)
    if height is None and (b is a or task.both):
        executor = loss.executor(xp, bound, (a, b))
        outcome = None if executor is None else _run_executor(task, (a, b), executor, gradient, upstream)
        if outcome is not None:
            return outcome
    there = _one_way(task, bound, (a, b), height, gradient, upstream)
    if not task.both:
        return there
    back = _one_way(task, bound, (b, a), height, gradient, upstream)
    return Outcome(
        (there.value + back.value) / 2,
        (there.per_anchor + back.per_anchor) / 2,
        (_half(there.gradients[0], back.gradients[1]), _half(there.gradients[1], back.gradients[0])),
    )


def _half(one: Array | None, other: Array | None) -> Array | None:
    return None if one is None or other is None else (one + other) / 2


def _one_way(
    task: Task,
    bound: BoundRelation,
    sides: tuple[Prepared, Prepared],
    height: int | None,
    gradient: bool,
    upstream: Array | None,
) -> Outcome:
    """The table strip by strip."""
    xp, measure, (a, b) = task.xp, task.loss.measure, sides
    losses, terms, grad_a, grad_b = _strips(
        task, bound, sides, height or tall(int(b.rows.shape[0])), gradient, upstream
    )
    gradients: tuple[Array | None, Array | None] = (None, None)
    if gradient:
        total = None if upstream is not None else xp.sum(terms)
        ga = measure.unprepare(xp, a, _over(xp, grad_a, total))
        gb = None if b is a else measure.unprepare(xp, b, _over(xp, grad_b, total))
        gradients = (ga, gb)
    return Outcome(*_means(xp, losses, terms), gradients)


def tall(references: int) -> int:
    """How many anchors a strip against so many references takes."""
    count = max(references, 1)
    return max(16, min(max(TALL, STRIP // count), LARGEST // count))


def _strips(
    task: Task,
    bound: BoundRelation,
    sides: tuple[Prepared, Prepared],
    height: int,
    gradient: bool,
    upstream: Array | None,
) -> tuple[Array, Array, Array, Array]:
    """Losses, terms and the gradients of both sides' rows, one strip after the other."""
    xp, loss, (a, b), count = task.xp, task.loss, sides, sides[0].rows.shape[0]
    grad_a = xp.zeros_like(a.rows) if gradient else a.rows
    grad_b = grad_a if b is a else xp.zeros_like(b.rows) if gradient else b.rows
    losses, terms = zeros(xp, (count,), a.rows), zeros(xp, (count,), a.rows, xp.float64)
    for start in range(0, count, height):
        stop = min(start + height, count)
        part = slice(start, stop)
        strip, pair = a.strip(start, stop), bound.strip(start, stop)
        table = loss.measure.table(xp, strip, b, start if b is a else None)
        losses[part], weight, terms[part] = _rule(loss, xp, table.own(xp, loss.measure), pair)
        if gradient:
            if upstream is not None:
                weight = weight * _per_term(xp, upstream[part], terms[part])
            loss.measure.pull(xp, table, weight, (strip, b), (grad_a[part], grad_b))
    return losses, terms, grad_a, grad_b


def _run_executor(
    task: Task, sides: tuple[Prepared, Prepared], executor: Executor, gradient: bool, upstream: Array | None
) -> Outcome | None:
    xp, unprepare = task.xp, task.loss.measure.unprepare
    ran = executor.run(gradient, upstream)
    if ran is None:
        return None
    losses, terms, (left, right) = ran
    gradients: tuple[Array | None, Array | None] = (None, None)
    if gradient:
        total = None if upstream is not None else xp.sum(terms)
        other = None if right is None else unprepare(xp, sides[1], _over(xp, right, total))
        gradients = (unprepare(xp, sides[0], _over(xp, left, total)), other)
    return Outcome(*_means(xp, losses, terms), gradients)


def _run_rows(task: Task, relation: Rows, gradient: bool, upstream: Array | None) -> Outcome:
    """Pairs given one by one: no table but the pairs themselves."""
    xp, loss, measure = task.xp, task.loss, task.loss.measure
    given = task.references is None
    values = task.anchors if given else measure.rows(xp, task.anchors, task.references)
    pair = relation.strip_of(xp, values)
    losses, weight, terms = _rule(loss, xp, xp.asarray(values, copy=True), pair)
    gradients: tuple[Array | None, Array | None] = (None, None)
    if gradient:
        weight = weight * _per_term(xp, upstream, terms) if upstream is not None else _over(xp, weight, xp.sum(terms))
        gradients = (weight, None) if given else measure.pull_rows(xp, values, weight, task.anchors, task.references)
    return Outcome(*_means(xp, losses, terms), gradients)


def _rule(loss: Rule, xp: Namespace, values: Array, pair: Pair) -> tuple[Array, Array, Array]:
    """The loss's own rule on a strip; anchors without a term count for nothing."""
    losses, weight = loss.strip(xp, values, pair)
    losses = xp.reshape(losses, (-1,))
    terms = xp.reshape(loss.terms(xp, pair, weight), (-1,))
    counts, terms = terms > 0, xp.astype(terms, xp.float64)
    if on_host(terms) and bool(xp.all(counts)):
        return losses, weight, terms
    return where(xp, counts, losses, 0.0), where(xp, counts[:, None], weight, 0.0), terms


def _per_term(xp: Namespace, upstream: Array, terms: Array) -> Array:
    share = where(xp, terms > 0, xp.astype(upstream, xp.float64) / where(xp, terms > 0, terms, 1.0), 0.0)
    return xp.astype(share, upstream.dtype)[:, None]


def _over(xp: Namespace, gradient: Array, total: Array | None) -> Array:
    """The gradient of a mean over ``total`` terms from that of the sum."""
    return gradient if total is None else gradient * xp.astype(1 / where(xp, total > 0, total, 1.0), gradient.dtype)


def _means(xp: Namespace, losses: Array, terms: Array) -> tuple[Any, Any]:
    safe = where(xp, terms > 0, terms, 1.0)
    total = xp.sum(terms)
    value = xp.sum(xp.astype(losses, xp.float64)) / where(xp, total > 0, total, 1.0)
    return value, xp.astype(xp.astype(losses, xp.float64) / safe, losses.dtype)


__all__ = ["Outcome", "Task"]
