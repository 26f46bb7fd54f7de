"""A loss on a table as one traceable function of its arrays."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
from nearfar._arrays import Array, Namespace, namespace, narrow, where, working_copy
from nearfar.engine.sums import per_term
from nearfar.engine.task import centre
from nearfar.jax._axis import gathered, scattered, start, total
from nearfar.jax._host import run_on_host
from nearfar.jax._pairs import Relation
from nearfar.jax._passes import coupled_ran, tallied_ran
from nearfar.jax._plan import Marks, Plan
from nearfar.jax._strips import Strips, ruled, strips_ran
from nearfar.relations.whole import WholePair


class Result(NamedTuple):
    """What a run gives, in the dtype of what it was given; as :class:`nearfar.engine.Outcome`."""

    value: Array
    per_anchor: Array
    gradients: tuple[Any, Any]


@partial(jax.jit, static_argnums=(0, 4))
def run(
    plan: Plan,
    anchors: Array,
    references: Array | None,
    marks: Marks,
    gradient: bool,
    upstream: Array | None = None,
) -> Result:
    """Value, each anchor's loss and, if asked for, the gradients of the mean or of ``Σ upstream · per_anchor``."""
    xp = namespace(embeddings=anchors, references=references)
    given = anchors, references
    x, y = (None if rows is None else working_copy(xp, rows) for rows in given)
    if plan.host is not None:
        value, per_anchor, *grads = run_on_host(xp, plan, x, y, marks, gradient, upstream)
        first, second = (None if g is None else narrow(g, rows) for g, rows in zip(grads, given, strict=True))
        return Result(narrow(value, anchors), narrow(per_anchor, anchors), (first, second))
    with jax.default_matmul_precision("highest"):
        ways, back = (_rows if plan.form == "rows" else _table)(xp, plan, (x, y), marks, gradient, upstream)
        value, factors = _means(xp, ways, plan)
        each = [losses / xp.astype(where(xp, terms > 0, terms, 1.0), losses.dtype) for losses, terms, _, _ in ways]
        per_anchor = sum(each[1:], each[0]) / len(each)
        gradients: list[Any] = [None, None]
        if gradient:
            gradients = [
                _sum(xp, [way[2 + side] for way in ways], factors if upstream is None else [1 / len(ways)] * len(ways))
                for side in (0, 1)
            ]
        first, second = (
            None if g is None else narrow(undo(g), rows) for g, undo, rows in zip(gradients, back, given, strict=True)
        )
    return Result(narrow(value, anchors), narrow(per_anchor, anchors), (first, second))


def _means(xp: Namespace, ways: list[Any], plan: Plan) -> tuple[Array, list[Array]]:
    """The mean over all terms, 0 without one, averaged over the directions; factors of the gradients of the sums."""
    value: Any = 0.0
    factors: list[Array] = []
    for losses, terms, _, _ in ways:
        count = total(xp.sum(terms), plan.axis)
        share = 1 / where(xp, count > 0, count, 1.0) / len(ways)
        value, factors = value + total(xp.sum(losses, dtype=xp.float64), plan.axis) * share, [*factors, share]
    return value, factors


def _sum(xp: Namespace, parts: list[Any], factors: list[Any]) -> Any:
    if parts[0] is None:
        return None
    scaled = [
        part * (f if isinstance(f, float) else xp.astype(f, part.dtype)) for part, f in zip(parts, factors, strict=True)
    ]
    return sum(scaled[1:], scaled[0])


def _rows(
    xp: Namespace, plan: Plan, sides: tuple[Array, Any], marks: Marks, gradient: bool, upstream: Array | None
) -> tuple[list[Any], Any]:
    """Pairs given one by one: no table but the pairs themselves."""
    (x, y), loss = sides, plan.loss
    values = x if y is None else loss.measure.rows(xp, x, y)
    totals = tuple(total(xp.sum(weight, dtype=xp.float64), plan.axis) for weight in marks)
    losses, weight, terms = ruled(xp, loss, values, WholePair(xp, *marks, totals, False))
    if upstream is not None:
        weight = weight * per_term(xp, upstream, terms)
    left, right = (weight, None) if y is None or not gradient else loss.measure.pull_rows(xp, values, weight, x, y)
    return [(losses, terms, left, right)], (lambda g: g, lambda g: g)


def _table(
    xp: Namespace, plan: Plan, sides: tuple[Array, Any], marks: Marks, gradient: bool, upstream: Array | None
) -> tuple[list[Any], Any]:
    """The table of the own anchors and all references; with ``both`` that of all anchors and the own references too."""
    (x, y), measure, axis = sides, plan.loss.measure, plan.axis
    shared = axis if y is None or not plan.equal else None
    marks = _numbered(plan, marks, x)
    x, y = _without_ignored(xp, plan, x, y, marks)
    own = [x, x if y is None else y]
    everyone = [gathered(own[0], axis if plan.both else None), gathered(own[1], shared)]
    middle = centre(xp, everyone[1]) if measure.centres else None
    a, b = (measure.prepare(xp, rows, middle) for rows in own)
    ways = []
    for k in (0, 1) if plan.both else (0,):
        rows, others = own[k], everyone[1 - k]
        codes = (marks[k], gathered(marks[1 - k], shared)) if plan.form == "labels" else marks
        relation = Relation(xp, plan, codes, int(others.shape[0]), start(int(rows.shape[0]), shared), rows)
        strips = Strips(xp, plan.loss, relation, (a, b)[k], measure.prepare(xp, others, middle))
        losses, terms, left, right = _ran(strips)(strips, gradient, upstream)
        if gradient:
            right = scattered(right, shared) if shared is not None else total(right, axis)
            left, right = (left + right, None) if plan.is_self else (left, right)
        ways.append((losses, terms, left, right) if k == 0 else (losses, terms, right, left))
    return ways, (lambda g: measure.unprepare(xp, a, g), lambda g: measure.unprepare(xp, b, g))


def _ran(strips: Strips) -> Any:
    if hasattr(strips.loss, "couple"):
        return coupled_ran
    return tallied_ran if hasattr(strips.loss, "tally") else strips_ran


def _numbered(plan: Plan, marks: Marks, x: Array) -> Marks:
    """Labels that are places in the device's batch as places in everyone's."""
    if not plan.numbered or plan.axis is None:
        return marks
    return marks[0] + start(int(x.shape[0]), plan.axis), marks[1] + start(int(x.shape[0]), plan.axis)


def _without_ignored(xp: Namespace, plan: Plan, x: Array, y: Any, marks: Marks) -> tuple[Array, Any]:
    """Zeros for the rows that take part in nothing, whatever stands there."""
    if plan.ignore is None:
        return x, y
    x = where(xp, (marks[0] != plan.ignore)[:, None], x, 0.0)
    if y is None or not plan.ignore_references:
        return x, y
    return x, where(xp, (marks[1] != plan.ignore)[:, None], y, 0.0)
