"""What a run over a table leaves: sums of terms, and gradients of the prepared rows; and how they become a mean's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nearfar._arrays import Array, Namespace, on_host, where
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

    def turned(self) -> Ran:
        """The same, with the names of the sides exchanged."""
        return replace(self, left=self.right, right=self.left)

    def halves(self, xp: Namespace, factors: list[Any], other: Ran) -> Ran:
        """Half of this gradient and half of another's of the same sides, each times its own factor.

        Where the other has none, this one holds both.
        """

        def half(one: Any, two: Any) -> Any:
            if one is None:
                return None
            if two is None:
                return _times(xp, one, factors[0]) / 2
            return _times(xp, one, factors[0]) / 2 + _times(xp, two, factors[1]) / 2

        left, right = half(self.left, other.left), half(self.right, other.right)
        return replace(
            self, left=left, right=right, scale=half(self.scale, other.scale), shift=half(self.shift, other.shift)
        )

    def gradients(
        self, xp: Namespace, measure: Measure, sides: Any, factor: Any, peers: Peers | None
    ) -> tuple[Array | None, Array | None]:
        """Gradients of the embeddings; ``factor`` makes a mean's from a sum's."""
        if sides is None:
            return _times(xp, self.left, factor), _times(xp, self.right, factor)
        (a, b), left, right = sides, self.left, self.right
        if peers is not None:
            left, right = peers.scatter(left, right)
            a, b = (side if at is None else side.at(at) for side, at in zip((a, b), peers.places, strict=True))
        return _back(xp, measure, a, left, factor), _back(xp, measure, b, right, factor)

    def moments(self, xp: Namespace, sides: Any, factor: Any) -> tuple[Any, Any]:
        """The moments of the weights; Σ weight · similarity is the product of rows and their gradient."""
        scale = self.scale
        if scale is None:
            scale = xp.sum(xp.astype(sides[0].rows, xp.float64) * xp.astype(self.left, xp.float64))
            scale = scale / 2 if self.right is None else scale
        return _times(xp, scale, factor), _times(xp, self.shift, factor)


def _back(xp: Namespace, measure: Measure, side: Prepared, gradient: Array | None, factor: Any) -> Any:
    return None if gradient is None else measure.unprepare(xp, side, _times(xp, gradient, factor))


def _times(xp: Namespace, values: Array | None, factor: Any) -> Any:
    """A run's own sums times a factor, in place where the library allows."""
    if values is None or factor is None:
        return values
    values *= factor if isinstance(factor, float) else xp.astype(factor, values.dtype)
    return values


def mean(xp: Namespace, total: Array, count: Array, share: int) -> tuple[Array, Any]:
    """The mean, 0 without a term, and the factor that makes its gradient from that of the sum, times ``share``."""
    if on_host(count):
        # Python's numbers, which save small batches a dozen calls.
        terms = float(count)
        terms = terms if terms > 0 else 1.0
        return total / terms, share / terms
    safe = where(xp, count > 0, count, 1.0)
    return total / safe, share / safe


def per_term(xp: Namespace, upstream: Array, terms: Array) -> Array:
    """What stands before each anchor's sum of terms, as a column."""
    share = where(xp, terms > 0, xp.astype(upstream, xp.float64) / where(xp, terms > 0, terms, 1.0), 0.0)
    return xp.astype(share, upstream.dtype)[:, None]
