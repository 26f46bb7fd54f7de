"""The table of a strip and its chain rule, in static shapes and without writing in place.

Similarities are matrix products. Distances of differences are too, where the product can be trusted with every pair of
the strip; a strip with a near pair is computed from the differences themselves, in blocks of references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import lax
from nearfar._arrays import Array, Namespace, arange, relu, where
from nearfar.jax._axis import varying
from nearfar.measures import CosineDistance, Dot, Euclidean, Measure
from nearfar.measures.base import Prepared
from nearfar.measures.euclidean import NEAR

# Elements of a block of differences.
BLOCK = 1 << 20


def table(
    xp: Namespace, measure: Measure, a: Prepared, b: Prepared, places: Array | None, live: tuple[Array, Array]
) -> tuple[Array, Array | None]:
    """Measure of every anchor to every reference, and whether a pair that takes part is near; None: not asked.

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
    near = xp.any(_near(xp, a, b, squared) & (counts if itself is None else counts & ~itself))
    values = lax.cond(near, lambda: _direct(xp, measure, a, b), lambda: measure._from_square(xp, relu(xp, squared)))
    if itself is not None:
        values = where(xp, ~itself, values, 0.0)
    if isinstance(measure, CosineDistance):
        values = where(xp, (a.norm[:, 0] != 0)[:, None] & (b.norm[:, 0] != 0)[None, :], values, 1.0)  # type: ignore[index]
    return values, near


def pull(
    xp: Namespace, measure: Measure, table: tuple[Array, Array | None], weight: Array, a: Prepared, b: Prepared
) -> tuple[Array, Array]:
    """Gradients of both sides' rows for the pair weights ∂loss/∂measure."""
    values, near = table
    if isinstance(measure, Dot):
        return weight @ b.rows, weight.T @ a.rows
    if not isinstance(measure, Euclidean):
        return _pull_direct(xp, measure, values, weight, a, b)

    def by_product() -> tuple[Array, Array]:
        apart = values != 0
        radial = where(xp, apart, weight, 0.0) if measure.reads_table else weight
        radial, factor = measure._radial(where(xp, apart, values, 1.0), radial)
        left = factor * (xp.sum(radial, axis=1)[:, None] * a.rows - radial @ b.rows)
        return left, factor * (xp.sum(radial, axis=0)[:, None] * b.rows - radial.T @ a.rows)

    return lax.cond(near, lambda: _pull_direct(xp, measure, values, weight, a, b), by_product)  # type: ignore[no-any-return]


def _near(xp: Namespace, a: Prepared, b: Prepared, squared: Array) -> Array:
    """Pairs that the product cannot be trusted with; negated, so that NaN and what under- or overflowed are near."""
    info = xp.finfo(squared.dtype)
    floor = float(info.smallest_normal) / float(info.eps) ** 2
    limit = NEAR * (a.squares + floor)[:, None] + NEAR * (b.squares + floor)[None, :]
    return ~((squared > limit) & (4 * (a.squares[:, None] + b.squares[None, :]) < float("inf")))


def _rules(measure: Measure) -> tuple[Callable[..., Array], Callable[..., tuple[Array, Array]]]:
    """Measure of given pairs and its chain rule, on prepared rows."""
    if isinstance(measure, Euclidean):  # Of unit rows, which are not normalised again.
        return (lambda *of: Euclidean.rows(measure, *of)), (lambda *of: Euclidean.pull_rows(measure, *of))
    return measure.rows, measure.pull_rows


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
    rows, _ = _rules(measure)
    values = lax.map(lambda block: rows(xp, a.given, _own(xp, block, a)), blocks)
    return xp.reshape(xp.moveaxis(values, 0, 1), (a.given.shape[0], -1))[:, : b.given.shape[0]]


def _pull_direct(
    xp: Namespace, measure: Measure, values: Array, weight: Array, a: Prepared, b: Prepared
) -> tuple[Array, Array]:
    """Along differences."""
    if not a.given.shape[0] or not b.given.shape[0]:
        return xp.zeros_like(a.given), xp.zeros_like(b.given)
    blocks, extra = _blocks(xp, a, b)
    _, pull_rows = _rules(measure)

    def cut(table: Array) -> Array:
        padded = xp.concat([table, xp.zeros((table.shape[0], extra), table.dtype)], axis=1)
        return xp.moveaxis(xp.reshape(padded, (table.shape[0], *blocks.shape[:2])), 1, 0)

    def step(left: Array, part: tuple[Any, ...]) -> tuple[Array, Array]:
        block, value, beside = part
        own, others = pull_rows(xp, value, beside, a.given, _own(xp, block, a))
        return left + own, xp.sum(others, axis=0)

    left, right = lax.scan(
        step, varying(xp.zeros_like(a.given), a.given, b.given, weight), (blocks, cut(values), cut(weight))
    )
    return left, xp.reshape(right, (-1, right.shape[2]))[: b.given.shape[0]]
