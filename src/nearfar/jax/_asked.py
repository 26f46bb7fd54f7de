"""Relations that say, for some anchors at a time, what each pair weighs; and one that a guide corrects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from jax import lax
from nearfar._arrays import Array, Namespace, arange, at_least, where
from nearfar.jax._pairs import ByLabels, Listed
from nearfar.jax._plan import Marks, Plan
from nearfar.measures.base import normalise
from nearfar.relations import Aligned, Guided, MultiLabels, Pair
from nearfar.relations.guided import BoundGuided
from nearfar.relations.paired import PairedPair
from nearfar.relations.whole import WholePair

# Anchors of a strip when the weights of the whole table are added up.
ROWS = 128


class OnTable(Protocol):
    """A relation on a table of own anchors and all references."""

    plan: Plan
    count: int

    def live(self, at: Array, real: Array) -> tuple[Array, Array]:
        """Which anchors of the strip and which references take part in anything."""
        ...

    def places(self, at: Array) -> Array | None:
        """The column in which each anchor meets itself."""
        ...

    def pair(self, at: Array, real: Array) -> Pair:
        """The relation of the anchors ``at``; one that is not real has no pairs."""
        ...


def on_table(xp: Namespace, plan: Plan, marks: Marks, start: Any, sides: tuple[Array, Array]) -> OnTable:
    """The relation of a plan; ``start`` is the place of the first of the anchors among the references."""
    if plan.guided is not None:
        inner, (guide, others) = marks
        guide = normalise(xp, guide)[0]
        others = guide if others is None else normalise(xp, others)[0]
        return Corrected(xp, plan, _plain(xp, plan, inner, start, sides), guide, others)
    return _plain(xp, plan, marks, start, sides)


def _plain(xp: Namespace, plan: Plan, marks: Marks, start: Any, sides: tuple[Array, Array]) -> OnTable:
    rows, others = sides
    count = int(others.shape[0])
    if plan.form == "labels":
        return ByLabels(xp, plan, marks, count, start, rows)
    references = None if plan.is_self else others
    if plan.form == "tags":
        tags = MultiLabels(*marks, plan.graded).bind(xp, rows, references)
        return ByWeights(xp, plan, tags.of, rows, count)
    if plan.paired is not None:
        return Documents(xp, plan, rows, count)
    return ByWeights(xp, plan, lambda at: (marks[0][at], marks[1][at]), rows, count)


@dataclass
class ByWeights:
    """Weights that ``of`` gives for the anchors at some places."""

    xp: Namespace
    plan: Plan
    of: Callable[[Array], tuple[Array, Array]]
    rows: Array
    count: int

    def __post_init__(self) -> None:
        """Weights of the whole table, which cost nothing unless a loss uses them: the compiler leaves them out."""

        def add(at: Array, real: Array) -> list[Array]:
            return [where(self.xp, real[:, None], weight, 0.0) for weight in self.of(at)]

        self.totals = _added(self.xp, add, self.rows)

    def live(self, at: Array, real: Array) -> tuple[Array, Array]:
        """All."""
        return real, self.xp.ones((self.count,), bool)

    def places(self, at: Array) -> Array | None:
        """As the table's own places."""
        return at if self.plan.is_self else None

    def pair(self, at: Array, real: Array) -> Pair:
        """Weights one by one."""
        positive, negative = (where(self.xp, real[:, None], weight, 0.0) for weight in self.of(at))
        return WholePair(self.xp, positive, negative, self.totals, False)


@dataclass
class Documents:
    """Queries and documents: :class:`nearfar.relations.paired.Paired`."""

    xp: Namespace
    plan: Plan
    rows: Array
    count: int

    def __post_init__(self) -> None:
        """Tie to the table."""
        self.bound = self.plan.paired.bind(self.xp, self.rows, self.xp.zeros((self.count, 0)))  # type: ignore[union-attr]

    def live(self, at: Array, real: Array) -> tuple[Array, Array]:
        """All."""
        return real, self.xp.ones((self.count,), bool)

    def places(self, at: Array) -> None:
        """A query among the references is no pair, and is not looked for."""

    def pair(self, at: Array, real: Array) -> Pair:
        """A list of one positive."""
        xp, found = self.xp, PairedPair(self.bound, at)
        negative = xp.astype(found.stays & real[:, None], self.rows.dtype)
        weight = where(xp, real[:, None], found.weight, 0.0)
        positive = xp.astype(arange(xp, self.count, at)[None, :] == found.index, weight.dtype) * weight
        totals = found.positive_total, found.negative_total
        return Listed(WholePair(xp, positive, negative, totals, True), found.index, weight)


class Corrected:
    """Another relation without the negatives that a guide finds too near."""

    def __init__(self, xp: Namespace, plan: Plan, inner: OnTable, guide: Array, others: Array) -> None:
        self.plan, self.count, self.live, self.places = plan, inner.count, inner.live, inner.places
        margin, relative = plan.guided or (0.0, False)
        bound: Any = None  # The pairs come from ``inner``.
        self.inner, self.guide = inner, guide
        self.bound = BoundGuided(Guided(Aligned(), guide, others, margin, relative), xp, bound, guide, others)
        self.bound.negative_total, _ = _added(
            xp, lambda at, real: [self.pair(at, real).negative_count, xp.zeros((1, 1))], guide
        )

    def pair(self, at: Array, real: Array) -> Pair:
        """Corrected."""
        return self.bound.corrected(self.inner.pair(at, real), self.guide[at])


def anchors_share(xp: Namespace, relation: OnTable, rows: Array) -> Array:
    """Anchors over anchors with a positive."""

    def of(at: Array, real: Array) -> list[Array]:
        live = relation.live(at, real)[0]
        return [live, live & (relation.pair(at, real).positive_count[:, 0] > 0)]

    every, some = _added(xp, of, rows)
    return every / at_least(xp, some, 1.0)


def _added(xp: Namespace, of: Callable[[Array, Array], list[Array]], rows: Array) -> tuple[Array, Array]:
    """The sums of two arrays that ``of`` gives for each strip of anchors."""
    count = int(rows.shape[0])
    height = max(min(ROWS, count), 1)
    places = xp.reshape(arange(xp, -(-count // height) * height, rows), (-1, height))
    clipped = xp.clip(places, max=max(count - 1, 0))
    sums = lax.map(
        lambda part: [xp.sum(xp.astype(a, xp.float64)) for a in of(part[0], part[1])], (clipped, places < count)
    )
    return xp.sum(sums[0]), xp.sum(sums[1])
