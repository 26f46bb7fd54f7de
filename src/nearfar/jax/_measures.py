"""The table of a strip and its chain rule, in static shapes and without writing in place.

Similarities are matrix products. Distances of differences are too, where the product can be trusted; what is near is
computed from the differences themselves, for the references that are near an anchor of the strip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from nearfar._arrays import Array, Namespace, arange, relu, where
from nearfar.jax._axis import varying
from nearfar.measures import CosineDistance, Dot, Euclidean, Measure
from nearfar.measures.base import Prepared, normalise, unit_difference
from nearfar.measures.euclidean import CLOSE, NEAR

# Elements of a block of differences.
BLOCK = 1 << 18


def table(
    xp: Namespace, measure: Measure, a: Prepared, b: Prepared, places: Array | None, live: tuple[Array, Array]
) -> tuple[Array, Array | None]:
    """Measure of every anchor to every reference, and which pairs that take part are near; None: not asked.

    ``places`` are the columns in which the anchors meet themselves, at distance 0; ``live`` says which anchors and
    which references take part in anything.
    """
    if isinstance(measure, Dot):
        return measure.table(xp, a, b).values, None
    if not isinstance(measure, Euclidean):
        return _direct(xp, measure, a, b), None
    squared = measure._squares(xp, a, b)
    itself = None if places is None else arange(xp, squared.shape[1], squared)[None, :] == places[:, None]
    counts = live[0][:, None] & live[1][None, :]
    near = _near(xp, a, b, squared) & (counts if itself is None else counts & ~itself)
    values = measure._from_square(xp, relu(xp, squared))

    def again(values: Array, columns: Array, some: Prepared, here: Array) -> Array:
        found = measure._from_length(normalise(xp, _differences(xp, measure, a, some))[1][:, :, 0])
        return values.at[:, columns].set(xp.where(here, found, values[:, columns]), mode="drop")

    values = _with_near(xp, again, values, near, a, b)
    if itself is not None:
        values = where(xp, ~itself, values, 0.0)
    return values, near


def pull(
    xp: Namespace, measure: Measure, table: tuple[Array, Array | None], weight: Array, a: Prepared, b: Prepared
) -> tuple[Array, Array]:
    """Gradients of both sides' rows for the pair weights ∂loss/∂measure."""
    values, near = table
    if isinstance(measure, Dot):
        return weight @ b.rows, weight.T @ a.rows
    if not isinstance(measure, Euclidean) or near is None:
        return _pull_direct(xp, measure, values, weight, a, b)
    # What weighs nothing may have overflowed.
    apart = (values != 0) & ~near & (weight != 0)
    radial, factor = measure._radial(where(xp, apart, values, 1.0), where(xp, apart, weight, 0.0))
    left = factor * (xp.sum(radial, axis=1)[:, None] * a.rows - radial @ b.rows)
    right = factor * (xp.sum(radial, axis=0)[:, None] * b.rows - radial.T @ a.rows)

    def along(sides: tuple[Array, Array], columns: Array, some: Prepared, here: Array) -> tuple[Array, Array]:
        beside = xp.where(here, weight[:, columns], xp.zeros_like(weight[:, columns]))
        unit, length = normalise(xp, _differences(xp, measure, a, some))
        force = unit * measure._force(beside[:, :, None], length)
        own, others = xp.sum(force, axis=1), xp.sum(force, axis=0)
        return sides[0] + own, sides[1].at[columns].add(-others, mode="drop")

    return _with_near(xp, along, (left, right), near, a, b)  # type: ignore[no-any-return]


def _differences(xp: Namespace, measure: Euclidean, a: Prepared, b: Prepared) -> Array:
    """What the distances of all pairs are the lengths of."""
    step = a.given[:, None] - b.given[None, :]
    if not isinstance(measure, CosineDistance):
        return step
    one, other = ((side.raw, side.rows, side.norm) for side in (a.at((slice(None), None)), b.at((None, slice(None)))))
    close = xp.sum(step * step, axis=-1, keepdims=True) < CLOSE
    return xp.where(close, unit_difference(xp, one, other), step)


def _with_near(
    xp: Namespace, body: Callable[[Any, Array, Prepared, Array], Any], carry: Any, near: Array, a: Prepared, b: Prepared
) -> Any:
    """``carry = body(carry, columns, references, near)`` over the references that are near an anchor, a few at a time.

    A loop of no turn where nothing is near, also under ``vmap``, where a condition would run both of its branches.
    ``columns`` past the last reference fill up the last turn.
    """
    rows, count = near.shape
    if not rows or not count:
        return carry
    some = max(1, min(count, BLOCK // max(rows * a.given.shape[1], 1)))
    hot = xp.any(near, axis=0)
    # The hot references in front, in their order.
    order = xp.argsort(~hot, stable=True)
    order = xp.concat([order, xp.full((some,), count, dtype=order.dtype)])
    total = xp.sum(hot)

    def turn(state: tuple[Array, Any]) -> tuple[Array, Any]:
        done, carry = state
        columns = lax.dynamic_slice_in_dim(order, done, some)
        columns = xp.where(done + xp.arange(some) < total, columns, count)
        real = columns < count
        inside = xp.clip(columns, max=count - 1)
        return done + some, body(carry, columns, b.at(inside), near[:, inside] & real[None, :])

    start = varying(xp.zeros_like(total), near, a.given, b.given)
    carry = jax.tree.map(lambda c: varying(c, near, a.given, b.given), carry)
    return lax.while_loop(lambda state: state[0] < total, turn, (start, carry))[1]


def _near(xp: Namespace, a: Prepared, b: Prepared, squared: Array) -> Array:
    """Pairs that the product cannot be trusted with; negated, so that NaN and what under- or overflowed are near."""
    info = xp.finfo(squared.dtype)
    floor = float(info.smallest_normal) / float(info.eps) ** 2
    limit = NEAR * (a.squares + floor)[:, None] + NEAR * (b.squares + floor)[None, :]
    return ~((squared > limit) & (4 * (a.squares[:, None] + b.squares[None, :]) < float("inf")))


def _blocks(xp: Namespace, a: Prepared, b: Prepared) -> tuple[Array, int]:
    """References in blocks, the last one filled up with zeros, and how many are zeros."""
    rows, features = b.given.shape
    size = max(1, min(rows, BLOCK // max(a.given.shape[0] * features, 1)))
    blocks = -(-rows // size)
    padded = xp.concat([b.given, xp.zeros((blocks * size - rows, features), b.given.dtype)])
    return xp.reshape(padded, (blocks, size, features)), blocks * size - rows


def _own(xp: Namespace, block: Array, a: Prepared) -> Array:
    return xp.broadcast_to(block[None], (a.given.shape[0], *block.shape))


def _direct(xp: Namespace, measure: Measure, a: Prepared, b: Prepared) -> Array:
    """From differences."""
    if not a.given.shape[0] or not b.given.shape[0]:
        return xp.zeros((a.given.shape[0], b.given.shape[0]), a.given.dtype)
    blocks, _ = _blocks(xp, a, b)
    values = lax.map(lambda block: measure.rows(xp, a.given, _own(xp, block, a)), blocks)
    return xp.reshape(xp.moveaxis(values, 0, 1), (a.given.shape[0], -1))[:, : b.given.shape[0]]


def _pull_direct(
    xp: Namespace, measure: Measure, values: Array, weight: Array, a: Prepared, b: Prepared
) -> tuple[Array, Array]:
    """Along differences."""
    if not a.given.shape[0] or not b.given.shape[0]:
        return xp.zeros_like(a.given), xp.zeros_like(b.given)
    blocks, extra = _blocks(xp, a, b)

    def cut(table: Array) -> Array:
        padded = xp.concat([table, xp.zeros((table.shape[0], extra), table.dtype)], axis=1)
        return xp.moveaxis(xp.reshape(padded, (table.shape[0], *blocks.shape[:2])), 1, 0)

    def step(left: Array, part: tuple[Any, ...]) -> tuple[Array, Array]:
        block, value, beside = part
        own, others = measure.pull_rows(xp, value, beside, a.given, _own(xp, block, a))
        return left + own, xp.sum(others, axis=0)

    left, right = lax.scan(
        step, varying(xp.zeros_like(a.given), a.given, b.given, weight), (blocks, cut(values), cut(weight))
    )
    return left, xp.reshape(right, (-1, right.shape[2]))[: b.given.shape[0]]
