"""Losses whose anchors are pairs: each anchor with each of its positives against all references."""

from __future__ import annotations

from typing import Any

from jax import lax
from nearfar._arrays import Array, times, where, zeros
from nearfar.engine.sums import per_term
from nearfar.jax._axis import varying
from nearfar.jax._strips import Ran, Strip, Strips
from nearfar.relations import Pair


def seen_ran(strips: Strips, gradient: bool, upstream: Array | None) -> Ran:
    """As :func:`nearfar.jax._strips.strips_ran`: as many products of a strip as the list of positives is long."""
    xp, loss, b = strips.xp, strips.loss, strips.b.rows

    def longest(pair: Pair) -> int:
        # The list of a label's items holds the anchor itself.
        plan = strips.relation.plan
        return int(pair.index.shape[1]) - int(plan.form == "labels" and plan.is_self and plan.guided is None)

    def body(carry: Any, strip: Strip) -> tuple[Any, Any]:
        pair, anchors = strip.pair, strip.side.rows
        terms = xp.reshape(xp.astype(loss.terms(xp, pair, pair.weight), xp.float64), (-1,))
        share = xp.astype(terms[:, None] > 0, anchors.dtype)
        if upstream is not None:
            share = per_term(xp, upstream[strip.at], terms)

        def one(carry: Any, listed: tuple[Array, Array]) -> tuple[Any, None]:
            (value, *into), (column, weight) = carry, listed
            positives, weight = b[column], weight[:, None]
            both = anchors + positives
            near = xp.sum(anchors * positives, axis=1, keepdims=True)
            odds, push, felt = loss.seen(xp, both @ b.T, near, pair, share * weight)
            value = value + times(xp, weight, odds)[:, 0]
            if gradient:
                left, right = into
                pushed = push @ b
                left = left + pushed + felt * positives
                right = (right + push.T @ both).at[column].add(pushed + felt * anchors)
                into = [left, right]
            return [value, *into], None

        start = [zeros(xp, anchors.shape[:1], anchors), *([xp.zeros_like(anchors), *carry] if gradient else [])]
        start = [varying(part, anchors, b, pair.weight) for part in start]
        (value, *into), _ = lax.scan(one, start, tuple(part.T for part in pair.listed(longest(pair), loss.by_pair)))
        losses = where(xp, terms > 0, value, 0.0)
        return into[1:], [losses, terms, *into[:1]]

    carry, (losses, terms, *left) = strips.each(body, [xp.zeros_like(b)] if gradient else [])
    return Ran(losses, terms, *left, *carry) if gradient else Ran(losses, terms, None, None)


__all__ = ["seen_ran"]
