"""Losses that need the whole table before they can weigh a pair: three scans over its strips.

The first gathers what the negatives make together, the second judges the positives by it, the third weighs all pairs.
The list of positives is taken again in each, since keeping it for all anchors may be as large as the table.
"""

from __future__ import annotations

from typing import Any

from nearfar._arrays import Array, add_rows, exp_sum, times, where, zeros
from nearfar.engine.sums import per_term
from nearfar.jax._axis import largest, total
from nearfar.jax._strips import Ran, Strip, Strips
from nearfar.relations import Pair
from nearfar.relations.whole import WholePair

INF = float("inf")


def coupled_ran(strips: Strips, gradient: bool, upstream: Array | None) -> Ran:
    """As :func:`nearfar.jax._strips.strips_ran`, of a loss on the pools of both items of a pair."""
    xp, loss, axis = strips.xp, strips.loss, strips.relation.plan.axis
    pools, columns = _pools(strips)
    safe = where(xp, columns != -INF, columns, 0.0)

    def judged(strip: Strip) -> tuple[Array, ...]:
        pair = strip.pair
        value, *slopes = loss.couple(xp, pair.take(strip.values), pools[strip.at, None], columns[pair.index], pair)
        terms = xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,))
        share = xp.astype(terms[:, None] > 0, pools.dtype)
        if upstream is not None:
            share = per_term(xp, upstream[strip.at], terms)
        losses = where(xp, terms > 0, xp.reshape(value, (-1,)), 0.0)
        return losses, terms, *(times(xp, share, slope) for slope in slopes)

    def judge(carry: Any, strip: Strip) -> tuple[Any, Any]:
        losses, terms, _, by_others, _ = judged(strip)
        return [_to_columns(carry[0], strip.pair, by_others)], [losses, terms]

    def weigh(carry: Any, strip: Strip) -> tuple[Any, Any]:
        pair, pool = strip.pair, pools[strip.at, None]
        _, _, by_own, _, by_positive = judged(strip)
        z, slope = loss.exponent(xp, strip.values)
        z = pair.negative_logits(z)
        weight = xp.exp(z - where(xp, pool != -INF, pool, 0.0)) * by_own
        weight = weight + xp.exp(z - safe[None, :]) * by_columns[None, :]
        weight = weight * slope if isinstance(slope, float) else times(xp, weight, slope)
        weight = pair.add(weight, by_positive)
        left, right = strips.pull(strip, weight)
        return [carry[0] + right], [left, *strips.moments(strip, weight)]

    (by_columns,), (losses, terms) = strips.each(judge, [xp.zeros_like(columns)])
    if not gradient:
        return Ran(losses, terms, None, None)
    by_columns = total(by_columns, axis)
    (right,), (left, *found) = strips.each(weigh, [xp.zeros_like(strips.b.rows)])
    return Ran(losses, terms, left, right, *found)


def _to_columns(columns: Array, pair: Pair, values: Array) -> Array:
    """``values`` of the listed positives added at their references."""
    if type(pair) is WholePair:
        return columns + values.sum(axis=0)
    return add_rows(columns, pair.index.reshape(-1), values.reshape(-1))


def _pools(strips: Strips) -> tuple[Array, Array]:
    """Log-sum-exps over the negatives of the own anchors and of all references."""
    xp, axis, b = strips.xp, strips.relation.plan.axis, strips.b.rows

    def body(carry: Any, strip: Strip) -> tuple[Any, Any]:
        top, sums = carry
        z = strip.pair.negative_logits(strips.loss.exponent(xp, strip.values)[0])
        higher = xp.maximum(top, xp.max(z, axis=0, initial=-INF))
        safe = where(xp, higher != -INF, higher, 0.0)
        sums = sums * xp.exp(top - safe) + xp.sum(xp.exp(z - safe[None, :]), axis=0)
        return [higher, sums], [exp_sum(xp, z)[0][:, 0]]

    empty = zeros(xp, (b.shape[0],), b)
    (top, sums), (rows,) = strips.each(body, [empty - INF, empty])
    higher = largest(top, axis)
    sums = total(sums * xp.exp(top - where(xp, higher != -INF, higher, 0.0)), axis)
    found = sums != 0  # NaN is found
    return rows, where(xp, found, xp.log(where(xp, found, sums, 1.0)) + higher, -INF)


def tallied_ran(strips: Strips, gradient: bool, upstream: Array | None) -> Ran:
    """As :func:`nearfar.jax._strips.strips_ran`, of a loss on the histograms of all positives and negatives."""
    xp, loss, axis = strips.xp, strips.loss, strips.relation.plan.axis
    empty = loss.tally(xp, strips.a.rows[:0], strips.a.rows[:0])

    def count(carry: Any, strip: Strip) -> tuple[Any, Any]:
        pair = strip.pair
        weight = pair.weigh(pair.negatives(xp.ones_like(strip.values), 0.0))
        return [carry[0] + loss.tally(xp, strip.values, weight)], []

    def judged(strip: Strip) -> tuple[Array, ...]:
        pair, positive = strip.pair, strip.pair.take(strip.values)
        value, slope = loss.judge(xp, positive, far)
        terms = xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,))
        share = pair.weight if upstream is None else pair.weight * per_term(xp, upstream[strip.at], terms)
        losses = xp.sum(times(xp, pair.weight, value), axis=1)
        return losses, terms, loss.tally(xp, positive, share), times(xp, share, slope)

    def judge(carry: Any, strip: Strip) -> tuple[Any, Any]:
        losses, terms, counts, _ = judged(strip)
        return [carry[0] + counts], [losses, terms]

    def weigh(carry: Any, strip: Strip) -> tuple[Any, Any]:
        pair = strip.pair
        weight = pair.weigh(pair.negatives(loss.push(xp, strip.values, near, far), 0.0))
        weight = pair.add(weight, judged(strip)[3])
        left, right = strips.pull(strip, weight)
        return [carry[0] + right], [left, *strips.moments(strip, weight)]

    (far,), _ = strips.each(count, [empty])
    far = total(far, axis)
    (near,), (losses, terms) = strips.each(judge, [empty])
    near = total(near, axis)
    if not gradient:
        return Ran(losses, terms, None, None)
    (right,), (left, *found) = strips.each(weigh, [xp.zeros_like(strips.b.rows)])
    return Ran(losses, terms, left, right, *found)
