"""Running a loss's rule over the table of pairs, strip by strip, with the gradient in the forward pass.

One strip holds some anchors against all references; nothing of the table outlives it. The value, the gradient and
the loss of each anchor do not depend on the height of the strips but for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from nearfar._arrays import Array, Namespace, on_host, turned, where, zeros
from nearfar.engine.coupled import TwoPasses
from nearfar.engine.rules import Rule
from nearfar.engine.sums import Ran, per_term
from nearfar.engine.tallied import TwoTallies
from nearfar.measures.base import Prepared, Similarity
from nearfar.relations import BoundRelation, Pair, Rows

if TYPE_CHECKING:
    from nearfar.engine.task import Task

Sides: TypeAlias = tuple[Prepared, Prepared]

# A strip and its few temporaries stay near the caches of a core with STRIP elements; with fewer rows than TALL the
# matrix products slow down, so it grows up to LARGEST for them. A square of WHOLE is one block, which saves a product.
STRIP, TALL, WHOLE, LARGEST = 1 << 19, 128, 768, 1 << 21


def tall(references: int) -> int:
    """How many anchors a strip against so many references takes."""
    count = max(references, 1)
    least = WHOLE if count <= WHOLE else TALL
    return max(16, min(max(least, STRIP // count), LARGEST // count))


def strips_ran(
    task: Task, bound: BoundRelation, sides: Sides, height: int | None, gradient: bool, upstream: Array | None
) -> Ran:
    """The loss on the table, strip by strip."""
    xp, loss, (a, b), peers = task.xp, task.loss, sides, task.peers
    own = slice(0, a.rows.shape[0]) if peers is None else peers.own
    height = height or tall(int(b.rows.shape[0]))
    left = xp.zeros_like(a.rows) if gradient else a.rows
    right = left if b is a else xp.zeros_like(b.rows) if gradient else b.rows
    count = own.stop - own.start
    passes = passes_of(loss)
    if passes is not None:
        run = passes(xp, cast("Any", loss), bound, a, b, height, own, peers)
        losses, terms = run.run(upstream, gradient, (left, right))
        return Ran(losses, terms, left, None if b is a else right)
    ran = Ran(zeros(xp, (count,), a.rows), zeros(xp, (count,), a.rows, xp.float64), left, None if b is a else right)
    if "shift" in task.moments:
        ran.shift = zeros(xp, (count,), a.rows)
    if "scale" in task.moments and not isinstance(loss.measure, Similarity):
        ran.scale = zeros(xp, (), a.rows, xp.float64)
    for start in range(own.start, own.stop, height):
        # In a function of its own, so that a strip's memory is free before the next one is made.
        _add_strip(task, bound, sides, (start, min(start + height, own.stop)), ran, gradient, upstream)
    return ran


def _add_strip(
    task: Task,
    bound: BoundRelation,
    sides: Sides,
    span: tuple[int, int],
    ran: Ran,
    gradient: bool,
    upstream: Array | None,
) -> None:
    """Losses and terms of the anchors of a strip, and its gradient."""
    xp, loss, (a, b), (start, stop) = task.xp, task.loss, sides, span
    first = 0 if task.peers is None else task.peers.own.start
    part = slice(start - first, stop - first)
    strip = a.strip(start, stop)
    table = loss.measure.table(xp, strip, b, start if b is a else None)
    values = table.own(xp, loss.measure) if ran.scale is None else xp.asarray(table.values, copy=True)
    if task.origin is not None:
        values -= task.origin[part, None]
    ran.losses[part], weight, ran.terms[part] = _rule(loss, xp, values, bound.strip(start, stop))
    del values
    if gradient:
        if upstream is not None:
            weight = weight * per_term(xp, upstream[part], ran.terms[part])
        moments(xp, ran, part, weight, table.values)
        right = ran.left if ran.right is None else ran.right
        loss.measure.pull(xp, table, weight, (strip, b), (ran.left[start:stop], right))


def one_strip(loss: Rule, a: Prepared, b: Prepared) -> bool:
    """Whether a loss with a strip takes the table in one."""
    return passes_of(loss) is None and int(a.rows.shape[0]) <= tall(int(b.rows.shape[0]))


def passes_of(loss: Rule) -> Any:
    """What runs a loss that needs the whole table before it can weigh a pair; a loss may bring its own."""
    if hasattr(loss, "couple"):
        return TwoPasses
    return TwoTallies if hasattr(loss, "tally") else getattr(loss, "passes", None)


def both_ran(task: Task, bound: BoundRelation, sides: Sides, gradient: bool, upstream: Array | None) -> list[Ran]:
    """Both questions of a table that is one strip: the second one's table is the first, turned. Three products."""
    xp, loss, (a, b) = task.xp, task.loss, sides
    table, pair = loss.measure.table(xp, a, b), bound.strip(0, a.rows.shape[0])
    ways, weights = [], []
    for values in (table.own(xp, loss.measure), turned(xp, table.values)):
        losses, weight, terms = _rule(loss, xp, values, pair)
        weights.append(weight if upstream is None else weight * per_term(xp, upstream, terms))
        ways.append(Ran(losses, terms, None))
    if gradient:
        weight, other = weights
        if upstream is None:
            # The mean divides all by the terms of the first question.
            mine, its = (where(xp, total > 0, total, 1.0) for total in (xp.sum(way.terms) for way in ways))
            other = other * xp.astype(mine / its, other.dtype)
        ways[0].left, ways[0].right = xp.zeros_like(a.rows), xp.zeros_like(b.rows)
        loss.measure.pull(xp, table, weight + other.T, sides, (ways[0].left, ways[0].right))
    return ways


def rows_ran(task: Task, relation: Rows, upstream: Array | None) -> Ran:
    """Pairs given one by one: no table but the pairs themselves."""
    xp, loss, measure = task.xp, task.loss, task.loss.measure
    given = task.references is None
    values = task.anchors if given else measure.rows(xp, task.anchors, task.references)
    pair = relation.strip_of(xp, values)
    if task.peers is not None:
        totals = xp.stack([pair.positive_total, pair.negative_total])
        pair.positive_total, pair.negative_total = task.peers.total(totals)
    losses, weight, terms = _rule(loss, xp, xp.asarray(values, copy=True), pair)
    if upstream is not None:
        weight = weight * per_term(xp, upstream, terms)
    left, right = (weight, None) if given else measure.pull_rows(xp, values, weight, task.anchors, task.references)
    ran = Ran(losses, terms, left, right)
    if task.moments:
        ran.scale, ran.shift = zeros(xp, (), values, xp.float64), zeros(xp, (values.shape[0],), values)
        moments(xp, ran, slice(0, values.shape[0]), weight, values)
    return ran


def moments(xp: Namespace, ran: Ran, part: slice, weight: Array, values: Array) -> None:
    """Add a strip's moments of the weights, as far as the run keeps them."""
    if ran.shift is not None:
        ran.shift[part] += xp.sum(weight, axis=1)
    if ran.scale is not None:
        ran.scale = ran.scale + xp.sum(where(xp, weight != 0, weight * values, 0.0), dtype=xp.float64)


def _rule(loss: Rule, xp: Namespace, values: Array, pair: Pair) -> tuple[Array, Array, Array]:
    """The loss's own rule on a strip; anchors without a term count for nothing."""
    losses, weight = loss.strip(xp, values, pair)
    losses = xp.reshape(losses, (-1,))
    terms = xp.astype(xp.reshape(loss.terms(xp, pair, weight), (-1,)), xp.float64)
    if on_host(terms) and terms.shape[0] and float(xp.min(terms)) > 0:
        return losses, weight, terms
    counts = terms > 0
    return where(xp, counts, losses, 0.0), where(xp, counts[:, None], weight, 0.0), terms
