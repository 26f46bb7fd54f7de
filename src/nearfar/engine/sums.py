"""What a run over a table leaves: sums of terms, and gradients of the prepared rows; and how they become a mean's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nearfar._arrays import Array, Namespace, where
from nearfar.engine.peers import Peers
from nearfar.measures.base import Measure, Prepared


@dataclass
class Ran:
    """Sums over the terms of each anchor, and the gradients of both sides' rows of the sum of all terms.

    With an upstream gradient, those of ``Σ upstream · mean`` instead.

    Attributes:
        losses: Sum of each anchor's terms.
        terms: How many terms each anchor has, float64.
        left: Gradient of the anchors' rows.
        right: Gradient of the references' rows; None for a batch against itself.
        scale: Σ weight · measure, where it was asked for and no product gives it.
        shift: Σ weight of each anchor's row, where asked for.
    """

    losses: Array
    terms: Array
    left: Array
    right: Array | None = None
    scale: Array | None = None
    shift: Array | None = None

    def averaged_with(self, back: Ran) -> Ran:
        """The mean of a question and the same in the other direction."""
        right = None if self.right is None else (self.right + back.left) / 2
        left = self.left if back.right is None else (self.left + back.right) / 2
        scale = None if self.scale is None else (self.scale + back.scale) / 2
        shift = None if self.shift is None else (self.shift + back.shift) / 2
        return Ran((self.losses + back.losses) / 2, (self.terms + back.terms) / 2, left, right, scale, shift)

    def gradients(
        self, xp: Namespace, measure: Measure, sides: Any, factor: Array | None, peers: Peers | None
    ) -> tuple[Array | None, Array | None]:
        """Gradients of the embeddings; ``factor`` makes a mean's from a sum's."""
        if sides is None:
            return _times(xp, self.left, factor), _times(xp, self.right, factor)
        (a, b), left, right = sides, self.left, self.right
        if peers is not None and b is a:
            left, a = peers.scatter(left), a.at(peers.own)
        elif peers is not None and peers.own_references is not None:
            right, b = peers.scatter(right), b.at(peers.own_references)
        back = None if right is None else _back(xp, measure, b, right, factor)
        return _back(xp, measure, a, left, factor), back

    def moments(self, xp: Namespace, sides: Any, factor: Array | None) -> tuple[Any, Any]:
        """The moments of the weights; Σ weight · similarity is the product of rows and their gradient."""
        scale = self.scale
        if scale is None:
            scale = xp.sum(xp.astype(sides[0].rows, xp.float64) * xp.astype(self.left, xp.float64))
            scale = scale / 2 if self.right is None else scale
        return _times(xp, scale, factor), _times(xp, self.shift, factor)


def _back(xp: Namespace, measure: Measure, side: Prepared, gradient: Array, factor: Array | None) -> Array:
    return measure.unprepare(xp, side, _times(xp, gradient, factor))


def _times(xp: Namespace, values: Array | None, factor: Array | None) -> Any:
    return values if values is None or factor is None else values * xp.astype(factor, values.dtype)


def over(xp: Namespace, total: Array, share: int) -> Array:
    """``share / total``, or 1 without a term."""
    return share / where(xp, total > 0, total, 1.0)


def mean(xp: Namespace, value: Array, total: Array, ran: Ran) -> tuple[Any, Any]:
    """The mean over all terms, and over each anchor's own."""
    safe = where(xp, ran.terms > 0, ran.terms, 1.0)
    per_anchor = xp.astype(xp.astype(ran.losses, xp.float64) / safe, ran.losses.dtype)
    return value / where(xp, total > 0, total, 1.0), per_anchor


def per_term(xp: Namespace, upstream: Array, terms: Array) -> Array:
    """What stands before each anchor's sum of terms, as a column."""
    share = where(xp, terms > 0, xp.astype(upstream, xp.float64) / where(xp, terms > 0, terms, 1.0), 0.0)
    return xp.astype(share, upstream.dtype)[:, None]
