"""A loss on a table as one traceable function of its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from nearfar._arrays import Array, Namespace, namespace, narrow, where, working_copy
from nearfar.engine.sums import per_term
from nearfar.engine.task import centre
from nearfar.jax._asked import anchors_share, on_table
from nearfar.jax._axis import gathered, scattered, start, total
from nearfar.jax._host import run_on_host
from nearfar.jax._learned import held
from nearfar.jax._learned import slopes as found
from nearfar.jax._passes import coupled_ran, tallied_ran
from nearfar.jax._plan import Marks, Plan
from nearfar.jax._seen import seen_ran
from nearfar.jax._strips import Ran, Strips, moments, ruled, strips_ran
from nearfar.relations.whole import WholePair


@dataclass(frozen=True)
class Asked:
    """What is asked of a table.

    Attributes:
        plan: The plan.
        loss: Its loss, with the hyper-parameters that are arrays.
        origin: Of the measures of each anchor.
        learns: Whether hyper-parameters have gradients.
        gradient: Whether rows have.
        upstream: Of each anchor's loss; None for the mean.
    """

    plan: Plan
    loss: Any
    origin: Array | None
    learns: bool
    gradient: bool
    upstream: Array | None


class Result(NamedTuple):
    """What a run gives, in the dtype of what it was given; as :class:`nearfar.engine.Outcome`.

    ``gradients`` are those of the anchors, the references and the hyper-parameters that are arrays.
    """

    value: Array
    per_anchor: Array
    gradients: tuple[Any, Any, dict[str, Array]]


@partial(jax.jit, static_argnums=(0, 4))
def run(
    plan: Plan,
    anchors: Array,
    references: Array | None,
    marks: Marks,
    gradient: bool,
    values: dict[str, Array],
    upstream: Array | None = None,
) -> Result:
    """Value, each anchor's loss and, if asked for, the gradients of the mean or of ``Σ upstream · per_anchor``."""
    xp = namespace(embeddings=anchors, references=references)
    given = anchors, references
    x, y = (None if rows is None else working_copy(xp, rows) for rows in given)
    if plan.host is not None:
        value, per_anchor, *grads = run_on_host(xp, plan, x, y, marks, gradient, upstream)
        first, second = (None if g is None else narrow(g, rows) for g, rows in zip(grads, given, strict=True))
        return Result(narrow(value, anchors), narrow(per_anchor, anchors), (first, second, {}))
    loss, origin = held(plan.loss, values)
    with jax.default_matmul_precision("highest"):
        asked = Asked(plan, loss, origin, bool(values), gradient, upstream)
        ways, back = (_rows if plan.form == "rows" else _table)(xp, asked, (x, y), marks)
        value, factors = _means(xp, ways, plan)
        each = [way.losses / xp.astype(where(xp, way.terms > 0, way.terms, 1.0), way.losses.dtype) for way in ways]
        per_anchor = sum(each[1:], each[0]) / len(each)
        gradients: list[Any] = [None, None]
        slopes: dict[str, Array] = {}
        if gradient:
            shares = factors if upstream is None else [1 / len(ways)] * len(ways)
            gradients = [_sum(xp, [way[2 + side] for way in ways], shares) for side in (0, 1)]
            if values:
                moments = _sum(xp, [way.moments for way in ways], shares)
                slopes = found(xp, loss, values, moments, lambda sums: total(sums, plan.axis))
        first, second = (
            None if g is None else narrow(undo(g), rows) for g, undo, rows in zip(gradients, back, given, strict=True)
        )
    return Result(narrow(value, anchors), narrow(per_anchor, anchors), (first, second, slopes))


def _means(xp: Namespace, ways: list[Ran], plan: Plan) -> tuple[Array, list[Array]]:
    """The mean over all terms, 0 without one, averaged over the directions; factors of the gradients of the sums."""
    value: Any = 0.0
    factors: list[Array] = []
    for losses, terms, *_ in ways:
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


def _rows(xp: Namespace, asked: Asked, sides: tuple[Array, Any], marks: Marks) -> tuple[list[Ran], Any]:
    """Pairs given one by one: no table but the pairs themselves."""
    (x, y), plan, loss = sides, asked.plan, asked.loss
    values = x if y is None else loss.measure.rows(xp, x, y)
    totals = tuple(total(xp.sum(weight, dtype=xp.float64), plan.axis) for weight in marks)
    seen = values if asked.origin is None else values - asked.origin[:, None]
    losses, weight, terms = ruled(xp, loss, seen, WholePair(xp, *marks, totals, False))
    if asked.upstream is not None:
        weight = weight * per_term(xp, asked.upstream, terms)
    given = y is None or not asked.gradient
    left, right = (weight, None) if given else loss.measure.pull_rows(xp, values, weight, x, y)
    return [Ran(losses, terms, left, right, moments(xp, values, weight))], (lambda g: g, lambda g: g)


def _table(xp: Namespace, asked: Asked, sides: tuple[Array, Any], marks: Marks) -> tuple[list[Ran], Any]:
    """The table of the own anchors and all references; with ``both`` that of all anchors and the own references too."""
    (x, y), plan, loss = sides, asked.plan, asked.loss
    measure, axis = loss.measure, plan.axis
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
        relation = on_table(xp, plan, codes, start(int(rows.shape[0]), shared), (rows, others))
        rule = loss.counted(anchors_share(xp, relation, rows)) if hasattr(loss, "counted") else loss
        beside = measure.prepare(xp, others, middle)
        strips = Strips(xp, rule, relation, (a, b)[k], beside, asked.origin, asked.learns)
        losses, terms, left, right, moments = _ran(strips)(strips, asked.gradient, asked.upstream)
        if asked.gradient:
            right = scattered(right, shared) if shared is not None else total(right, axis)
            left, right = (left + right, None) if plan.is_self else (left, right)
        ways.append(Ran(losses, terms, *((left, right) if k == 0 else (right, left)), moments))
    return ways, (lambda g: measure.unprepare(xp, a, g), lambda g: measure.unprepare(xp, b, g))


def _ran(strips: Strips) -> Any:
    if hasattr(strips.loss, "couple"):
        return coupled_ran
    if hasattr(strips.loss, "seen"):
        return seen_ran
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
    marks = marks if plan.guided is None else marks[0]
    x = where(xp, (marks[0] != plan.ignore)[:, None], x, 0.0)
    if y is None or not plan.ignore_references:
        return x, y
    return x, where(xp, (marks[1] != plan.ignore)[:, None], y, 0.0)
