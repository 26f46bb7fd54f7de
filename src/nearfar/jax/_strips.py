"""A loss's rule over the table in strips, as a scan: one strip at a time, with the gradient in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax import lax
from nearfar._arrays import Array, Namespace, arange, where
from nearfar.engine.strips import tall
from nearfar.engine.sums import per_term
from nearfar.jax._axis import varying
from nearfar.jax._measures import pull, table
from nearfar.jax._pairs import Relation
from nearfar.measures.base import Prepared
from nearfar.relations import Pair


@dataclass
class Strip:
    """Some anchors against all references."""

    at: Array
    side: Prepared
    pair: Pair
    values: Array
    near: Array | None


@dataclass
class Strips:
    """The table of own anchors ``a`` and all references ``b``."""

    xp: Namespace
    loss: Any
    relation: Relation
    a: Prepared
    b: Prepared

    def each(self, body: Callable[[Any, Strip], tuple[Any, Any]], carry: Any) -> tuple[Any, Any]:
        """``carry, out = body(carry, strip)`` over the strips; the outs of all anchors, one after the other."""
        xp, count = self.xp, int(self.a.rows.shape[0])
        height = max(min(self.relation.plan.height or tall(int(self.b.rows.shape[0])), count), 1)
        blocks = max(-(-count // height), 1)

        def step(carry: Any, places: Array) -> tuple[Any, Any]:
            # The last strip is filled up with its last anchor, without pairs.
            at = xp.clip(places, max=max(count - 1, 0))
            side, real = self.a.at(at), places < count
            live, itself = self.relation.live(at, real), self.relation.places(at)
            values, near = table(xp, self.loss.measure, side, self.b, itself, live)
            return body(carry, Strip(at, side, self.relation.pair(at, real), values, near))

        if blocks == 1:
            return step(carry, arange(xp, count, self.a.rows))
        places = xp.reshape(arange(xp, blocks * height, self.a.rows), (blocks, height))
        carry, outs = lax.scan(step, [varying(c, self.a.rows, self.b.rows, places) for c in carry], places)
        return carry, [xp.reshape(out, (blocks * height, *out.shape[2:]))[:count] for out in outs]

    def pull(self, strip: Strip, weight: Array) -> tuple[Array, Array]:
        """Gradients of the strip's anchors and of all references."""
        return pull(self.xp, self.loss.measure, (strip.values, strip.near), weight, strip.side, self.b)


def strips_ran(strips: Strips, gradient: bool, upstream: Array | None) -> tuple[Array, Array, Any, Any]:
    """Losses and terms of the own anchors, gradients of their rows and of all references' rows."""
    xp = strips.xp

    def body(carry: Any, strip: Strip) -> tuple[Any, Any]:
        losses, weight, terms = ruled(xp, strips.loss, strip.values, strip.pair)
        if not gradient:
            return carry, [losses, terms]
        if upstream is not None:
            weight = weight * per_term(xp, upstream[strip.at], terms)
        left, right = strips.pull(strip, weight)
        return [carry[0] + right], [losses, terms, left]

    right, (losses, terms, *left) = strips.each(body, [xp.zeros_like(strips.b.rows)] if gradient else [])
    return losses, terms, *(left or [None]), *(right or [None])


def ruled(xp: Namespace, loss: Any, values: Array, pair: Pair) -> tuple[Array, Array, Array]:
    """The loss's own rule; anchors without a term count for nothing."""
    losses, weight = loss.strip(xp, values, pair)
    terms = xp.reshape(loss.terms(xp, pair, weight), (-1,))
    counts = terms > 0
    losses = where(xp, counts, xp.reshape(losses, (-1,)), 0.0)
    return losses, where(xp, counts[:, None], weight, 0.0), xp.astype(terms, xp.float64)
