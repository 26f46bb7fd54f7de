"""What a measure is: prepared rows, the table of a strip, and the chain rule back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, add_rows, extremes, limits, on_host, power_of_two, row_max, where, zeros
from nearfar._errors import InputError

# Elements of a temporary of gathered differences: 1 M values keep it inside the cache of a core.
GATHERED = 1 << 20


@dataclass
class Prepared:
    """Rows of one side of the table.

    Attributes:
        rows: What enters the products; shape (items, features).
        given: The embeddings themselves, for differences.
        squares: Squared norm of each row.
        norm: Norm taken out by normalising, a column; None where none was.
        raw: The embeddings before normalising, where differences need them.
    """

    rows: Array
    given: Array
    squares: Array
    norm: Array | None = None
    raw: Array | None = None

    def strip(self, start: int, stop: int) -> Prepared:
        """The rows ``start`` … ``stop`` − 1; of all rows this itself."""
        if start == 0 and stop == self.rows.shape[0]:
            return self
        return self.at(slice(start, stop))

    def at(self, places: Any) -> Prepared:
        """The rows at an index or slice."""
        rows = self.rows[places]
        given = rows if self.given is self.rows else self.given[places]
        norm, raw = (None if values is None else values[places] for values in (self.norm, self.raw))
        return Prepared(rows, given, self.squares[places], norm, raw)


@dataclass
class Near:
    """Pairs of a strip that were computed directly: their places and their differences' length."""

    anchor: Array
    reference: Array
    length: Array


@dataclass
class Table:
    """The measure of a strip, which of its pairs were computed directly, and where its first anchor meets itself."""

    values: Array
    near: Near | None = None
    at: int | None = None

    def own(self, xp: Namespace, measure: Measure) -> Array:
        """Values that a loss may overwrite."""
        return xp.asarray(self.values, copy=True) if measure.reads_table else self.values


def normalise(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Unit rows and their norms (a column), right at any scale; a zero row stays zero with norm 0."""
    norm = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
    if _safe(xp, norm, x.shape[-1]):
        return x / norm, norm
    # By powers of two, so that both ways give the same bits; as a product, since a compiler may join two quotients to
    # one by a product that overflows.
    scale = power_of_two(xp, row_max(xp, xp.abs(x)))
    scaled = x * (1 / scale)
    length = xp.sqrt(xp.sum(scaled * scaled, axis=-1, keepdims=True))
    return scaled / where(xp, length != 0, length, 1.0), scale * length


def unit_difference(xp: Namespace, one: tuple[Array, Array, Array], other: tuple[Array, Array, Array]) -> Array:
    """``x / ‖x‖ − y / ‖y‖``; each side is x, its unit row and its norm.

    Unit rows are rounded, so that the difference of two that point almost the same way is not known from them: it is
    that of x and y, less what their norms differ by, which is known from the difference too.
    """
    (x, u, m), (y, v, n) = one, other
    longest = xp.maximum(m, n)
    # The norm of a row of subnormal numbers is rounded more than its unit row; that of the largest is beyond the range.
    known = (longest >= limits(xp, x.dtype)[0]) & (longest < float("inf"))
    m, n = where(xp, known, m, 1.0), where(xp, known, n, 1.0)
    by = 1 / power_of_two(xp, xp.maximum(m, n))  # A product, as in normalise.
    step, m, n = x * by - y * by, m * by, n * by
    longer = xp.sum(step * (u * (m / (m + n)) + v * (n / (m + n))), axis=-1, keepdims=True)
    return xp.where(known, (step - xp.where(m >= n, v, u) * longer) / xp.maximum(m, n), u - v)


def _safe(xp: Namespace, norm: Array, features: int) -> bool:
    """Whether no square under- or overflowed; not asked where looking waits for a device."""
    if not on_host(norm) or norm.shape[0] == 0:
        return False
    smallest, most_of_all, eps = limits(xp, norm.dtype)
    # Squares lost below the smallest number add up to less than one unit in the last place of the norm's.
    low = (features * smallest / eps**2) ** 0.5
    least, most = extremes(xp, norm)
    return bool(least > low and most < most_of_all**0.5 / 2)


def unnormalise(xp: Namespace, unit: Array, norm: Array, gradient: Array) -> Array:
    """Gradient of the vector behind a unit row: (g − u⟨u, g⟩) / norm, 0 at norm 0; may overwrite ``gradient``."""
    gradient -= unit * xp.sum(unit * gradient, axis=-1, keepdims=True)
    if on_host(norm) and norm.shape[0] and bool(xp.min(norm) > 0):
        gradient /= norm
        return gradient
    return where(xp, norm != 0, gradient / where(xp, norm != 0, norm, 1.0), 0.0)


class Measure:
    """Base of the measures; ``kind`` is ``"similarity"`` or ``"distance"``."""

    kind: ClassVar[str]
    # The measure of a pair as far apart as can be.
    farthest: ClassVar[float]
    # Whether rows are better prepared relative to a centre.
    centres: ClassVar[bool] = False
    # Whether ``pull`` reads the table again, which a loss may overwrite.
    reads_table: ClassVar[bool] = False
    # Whether gradients of listed pairs have a way of their own, ``pull_pairs``.
    lists: ClassVar[bool] = False

    def prepare(self, xp: Namespace, x: Array, centre: Array | None) -> Prepared:
        """Rows as they enter the table; ``centre`` is taken off where the measure allows it."""
        return Prepared(x, x, zeros(xp, (x.shape[0],), x))

    def unprepare(self, xp: Namespace, side: Prepared, gradient: Array) -> Array:
        """Gradient of the rows carried back to the embeddings."""
        return gradient

    def table(self, xp: Namespace, a: Prepared, b: Prepared, at: int | None = None) -> Table:
        """Measure of every anchor in ``a`` to every reference in ``b``.

        ``at`` is the column of the first anchor where the anchors are among the references.
        """
        raise NotImplementedError

    def within(self, xp: Namespace, a: Prepared, b: Prepared, reach: float) -> Table | None:
        """The table, or None where every pair is at ``reach`` or beyond and that was cheap to see."""
        return self.table(xp, a, b)

    def pull(
        self, xp: Namespace, table: Table, weight: Array, sides: tuple[Prepared, Prepared], into: tuple[Array, Array]
    ) -> None:
        """Add the gradients of both sides' rows for the pair weights ∂loss/∂measure to ``into``; overwrites them."""
        raise NotImplementedError

    def pull_pairs(
        self,
        xp: Namespace,
        pairs: tuple[Array, Array],
        weight: Array,
        sides: tuple[Prepared, Prepared],
        into: tuple[Array, Array],
    ) -> None:
        """The same for listed pairs only, places of anchors and of references; of the measures that ``lists`` says."""
        felt = weight != 0
        anchor, reference, weight = pairs[0][felt], pairs[1][felt], weight[felt, None]
        step = max(1, GATHERED // into[0].shape[1])
        for k in range(0, anchor.shape[0], step):
            part = slice(k, k + step)
            force = self.force(xp, sides, (anchor[part], reference[part]), weight[part])
            add_rows(into[0], anchor[part], force)
            add_rows(into[1], reference[part], -force)

    def force(
        self, xp: Namespace, sides: tuple[Prepared, Prepared], pairs: tuple[Array, Array], weight: Array
    ) -> Array:
        """Gradient of each listed pair's anchor, of its reference but for the sign; ``weight`` is a column."""
        raise NotImplementedError

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Measure of ``a[i]`` to ``b[i, k]``; shapes (n, d), (n, k, d) → (n, k)."""
        raise NotImplementedError

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Gradients of ``a`` and ``b`` of :meth:`rows`."""
        raise NotImplementedError


class Similarity(Measure):
    """Higher is nearer."""

    kind = "similarity"
    farthest = -float("inf")


class Distance(Measure):
    """Lower is nearer."""

    kind = "distance"
    farthest = float("inf")


def expect_kind(loss: Any, measure: Measure, kind: str) -> None:
    """Raise unless the measure is of the kind that the loss is defined on."""
    if not isinstance(measure, Measure) or measure.kind != kind:
        got = f"{type(measure).__name__}, a {measure.kind}" if isinstance(measure, Measure) else repr(measure)
        choices = "Cosine() or Dot()" if kind == "similarity" else "Euclidean(), SquaredEuclidean() or CosineDistance()"
        raise InputError(f"expected measure of {type(loss).__name__} to be a {kind}, got {got}; use {choices}")
