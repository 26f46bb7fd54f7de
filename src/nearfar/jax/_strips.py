"""A loss's rule over the table in strips, as a scan: one strip at a time, with the gradient in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax import lax
from nearfar._arrays import Array, Namespace, arange, times, where
from nearfar.engine.strips import tall
from nearfar.engine.sums import per_term
from nearfar.jax._asked import OnTable
from nearfar.jax._axis import varying
from nearfar.jax._measures import pull, table
from nearfar.measures.base import Prepared
from nearfar.relations import Pair


class Ran(NamedTuple):
    """Sums over a table: of the own anchors losses, terms and gradient; the gradient of all references' rows.

    ``moments`` are each own anchor's Σ weight · measure and Σ weight, as columns, where they are asked for.
    """

    losses: Array
    terms: Array
    left: Any
    right: Any
    moments: Any = None


@dataclass
class Strip:
    """Some anchors against all references.

    ``values`` are what the loss sees: the measure less the anchor's origin.
    """

    at: Array
    side: Prepared
    pair: Pair
    values: Array
    table: tuple[Array, Array | None]
    live: Array


@dataclass
class Strips:
    """The table of own anchors ``a`` and all references ``b``.

    ``origin`` is taken off the measures of each anchor; ``learns`` says whether moments are asked for.
    """

    xp: Namespace
    loss: Any
    relation: OnTable
    a: Prepared
    b: Prepared
    origin: Array | None = None
    learns: bool = False

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
            seen = values if self.origin is None else values - self.origin[at, None]
            return body(carry, Strip(at, side, self.relation.pair(at, real), seen, (values, near), live[0]))

        if blocks == 1:
            return step(carry, arange(xp, count, self.a.rows))
        places = xp.reshape(arange(xp, blocks * height, self.a.rows), (blocks, height))
        carry, outs = lax.scan(step, [varying(c, self.a.rows, self.b.rows, places) for c in carry], places)
        return carry, [xp.reshape(out, (blocks * height, *out.shape[2:]))[:count] for out in outs]

    def pull(self, strip: Strip, weight: Array) -> tuple[Array, Array]:
        """Gradients of the strip's anchors and of all references."""
        return pull(self.xp, self.loss.measure, strip.table, weight, strip.side, self.b)

    def moments(self, strip: Strip, weight: Array) -> list[Array]:
        """Of the strip's anchors, if asked for."""
        return [moments(self.xp, strip.table[0], weight)] if self.learns else []


def moments(xp: Namespace, values: Array, weight: Array) -> Array:
    """Σ weight · measure and Σ weight of each row."""
    wide = [xp.sum(part, axis=1, dtype=xp.float64) for part in (times(xp, weight, values), weight)]
    return xp.stack(wide, axis=1)


def strips_ran(strips: Strips, gradient: bool, upstream: Array | None) -> Ran:
    """The loss's own rule, strip by strip."""
    xp = strips.xp

    def body(carry: Any, strip: Strip) -> tuple[Any, Any]:
        losses, weight, terms = ruled(xp, strips.loss, strip.values, strip.pair, strip.live)
        if not gradient:
            return carry, [losses, terms]
        if upstream is not None:
            weight = weight * per_term(xp, upstream[strip.at], terms)
        left, right = strips.pull(strip, weight)
        return [carry[0] + right], [losses, terms, left, *strips.moments(strip, weight)]

    if not gradient:
        _, (losses, terms) = strips.each(body, [])
        return Ran(losses, terms, None, None)
    (right,), (losses, terms, left, *found) = strips.each(body, [xp.zeros_like(strips.b.rows)])
    return Ran(losses, terms, left, right, *found)


def ruled(xp: Namespace, loss: Any, values: Array, pair: Pair, live: Array | None = None) -> tuple[Array, Array, Array]:
    """The loss's own rule; anchors without a term, or that take part in nothing, count for nothing."""
    losses, weight = loss.strip(xp, values, pair)
    terms = xp.reshape(loss.terms(xp, pair, weight), (-1,))
    terms = terms if live is None else where(xp, live, terms, 0)
    counts = terms > 0
    losses = where(xp, counts, xp.reshape(losses, (-1,)), 0.0)
    return losses, where(xp, counts[:, None], weight, 0.0), xp.astype(terms, xp.float64)
