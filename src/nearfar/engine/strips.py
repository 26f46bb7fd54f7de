"""Running a loss's rule over the table of pairs, strip by strip, with the gradient in the forward pass.

One strip holds some anchors against all references; nothing of the table outlives it. The value, the gradient and
the loss of each anchor do not depend on the height of the strips but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from nearfar._arrays import Array, Namespace, on_host, quiet, where, zeros
from nearfar.measures import Measure
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair, Relation, Rows

# A strip and its few temporaries stay near the caches of a core with STRIP elements; with fewer rows than TALL the
# matrix products slow down, so it grows up to LARGEST for them.
STRIP, TALL, LARGEST = 1 << 18, 128, 1 << 21


class Executor(Protocol):
    """A faster way to run one loss on a batch against itself, made by the loss that owns it."""

    def losses(self) -> Array:
        """Sum of each anchor's terms."""
        ...

    def terms(self) -> Array:
        """How many terms of the mean each anchor contributes."""
        ...

    def gradient(self, upstream: Array) -> Array:
        """Gradient of the prepared rows of ``Σ upstream · loss``."""
        ...


class Rule(Protocol):
    """What the engine asks of a loss."""

    measure: Measure

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Loss of each anchor (a column or a vector) and weight of each pair, ∂loss/∂measure."""
        ...

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """How many terms of the mean each anchor contributes; 0 where it lacks what the loss needs."""
        ...

    def executor(self, xp: Namespace, bound: BoundRelation, rows: Array) -> Executor | None:
        """A faster way to run a batch against itself, if the loss has one that gives the same."""
        ...


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

    ``anchors`` and ``references`` are working copies: off the autograd graph, float32 or float64.
    """

    loss: Rule
    xp: Namespace
    anchors: Array
    references: Array | None
    relation: Relation | Rows

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
        task = Task(self.loss, self.xp, self.anchors[rows], references, relation)
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
    if height is None and b is a:
        executor = loss.executor(xp, bound, a.rows)
        if executor is not None:
            return _run_executor(task, a, executor, gradient, upstream)
    losses, terms, grad_a, grad_b = _strips(
        task, bound, (a, b), height or tall(int(b.rows.shape[0])), gradient, upstream
    )
    gradients: tuple[Array | None, Array | None] = (None, None)
    if gradient:
        total = None if upstream is not None else xp.sum(terms)
        ga = loss.measure.unprepare(xp, a, _over(xp, grad_a, total))
        gb = None if b is a else loss.measure.unprepare(xp, b, _over(xp, grad_b, total))
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
    xp, loss, (a, b), count = task.xp, task.loss, sides, task.anchors.shape[0]
    grad_a = xp.zeros_like(a.rows) if gradient else a.rows
    grad_b = grad_a if b is a else xp.zeros_like(b.rows) if gradient else b.rows
    losses, terms = zeros(xp, (count,), a.rows), zeros(xp, (count,), a.rows, xp.float64)
    for start in range(0, count, height):
        stop = min(start + height, count)
        part = slice(start, stop)
        strip, pair = a.strip(start, stop), bound.strip(start, stop)
        table = loss.measure.table(xp, strip, b)
        values = xp.asarray(table.values, copy=True) if loss.measure.reads_table else table.values
        losses[part], weight, terms[part] = _rule(loss, xp, values, pair)
        if gradient:
            if upstream is not None:
                weight = weight * _per_term(xp, upstream[part], terms[part])
            loss.measure.pull(xp, table, weight, (strip, b), (grad_a[part], grad_b))
    return losses, terms, grad_a, grad_b


def _run_executor(task: Task, side: Prepared, executor: Executor, gradient: bool, upstream: Array | None) -> Outcome:
    xp = task.xp
    losses, terms = executor.losses(), xp.astype(executor.terms(), xp.float64)
    gradients: tuple[Array | None, Array | None] = (None, None)
    if gradient:
        each = xp.astype(terms > 0, losses.dtype)
        if upstream is not None:
            each = _per_term(xp, upstream, terms)[:, 0]
        total = None if upstream is not None else xp.sum(terms)
        gradients = (task.loss.measure.unprepare(xp, side, _over(xp, executor.gradient(each), total)), None)
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


__all__ = ["Executor", "Outcome", "Rule", "Task"]
