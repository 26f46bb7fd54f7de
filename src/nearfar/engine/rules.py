"""What a loss says of itself: its rule on a strip, and for two kinds of loss the parts that rule is made of.

Every loss has a :class:`Rule`. Two kinds say more, and the engine does more with it: a :class:`Pooled` loss feels its
negatives through their log-sum-exp only, an :class:`Apart` loss is a sum over pairs. Their strips are written here,
once, from their parts; half tiles use the same parts.
"""

from __future__ import annotations

from typing import Protocol, cast

from nearfar._arrays import Array, Namespace, at_least, exp_sum, row_max, times, where, without
from nearfar.engine.sums import Ran
from nearfar.measures import Measure
from nearfar.measures.base import Prepared
from nearfar.relations import BoundRelation, Pair

INF = float("inf")


class Executor(Protocol):
    """A faster way to run one loss on one table, made by the loss that owns it."""

    @property
    def units(self) -> float:
        """Matrix products of the table's size that it takes."""
        ...

    @property
    def way(self) -> str:
        """In words, for :func:`nearfar.engine.explain`."""
        ...

    @property
    def elements(self) -> int:
        """Of its temporaries."""
        ...

    def run(self, gradient: bool, upstream: Array | None) -> Ran | None:
        """The sums of the run; None where only strips give the same."""
        ...


class Rule(Protocol):
    """What the engine asks of every loss."""

    @property
    def measure(self) -> Measure:
        """What the table holds."""
        ...

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Loss of each anchor (a column or a vector) and weight of each pair, ∂loss/∂measure."""
        ...

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """How many terms of the mean each anchor contributes; 0 where it lacks what the loss needs."""
        ...

    def executor(self, xp: Namespace, bound: BoundRelation, sides: tuple[Prepared, Prepared]) -> Executor | None:
        """A faster way to run this table, if the loss has one that gives the same."""
        ...


class Pooled(Rule, Protocol):
    """A loss of an anchor's positives and of the log-sum-exp over its negatives."""

    @property
    def linear(self) -> float | None:
        """The factor between measure and exponent, where that is all there is between them."""
        ...

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, Array | float]:
        """What stands in the exponential of a negative at measure ``s``, and its derivative; may overwrite ``s``."""
        ...

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """Loss of each anchor and its derivatives by the pool and by the listed positives.

        ``positive`` holds the measure at ``pair.index``; ``pool`` is a column, −inf without a negative.
        """
        ...


class Mined(Pooled, Protocol):
    """A pooled loss that leaves out what is easy beside an anchor's other pairs."""

    @property
    def mines(self) -> bool:
        """Whether it does."""
        ...

    def least(self, xp: Namespace, positive: Array, pair: Pair) -> Array:
        """What an anchor's negatives are compared with, a column; ∞ where all of them are easy."""
        ...

    def counts(self, xp: Namespace, s: Array, least: Array) -> Array:
        """1 for negatives at measure ``s``, 0 for those that are left out; a float array, as of NaN."""
        ...

    def hard(self, xp: Namespace, positive: Array, most: Array, pair: Pair) -> Array:
        """The listed positives, ∞ where one is left out; ``most`` is the nearest negative, −∞ without one."""
        ...


class Coupled(Rule, Protocol):
    """A loss whose pairs feel the pools of both their items: it needs the whole table's pools first; no strip."""

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, Array | float]:
        """As of :class:`Pooled`."""
        ...

    def couple(
        self, xp: Namespace, positive: Array, own: Array, others: Array, pair: Pair
    ) -> tuple[Array, Array, Array, Array]:
        """Loss of each anchor; derivatives by its pool, by the pools of the listed references, and by the positives.

        The pool of a reference runs over the anchors that are its negatives; ``others`` holds it at ``pair.index``.
        """
        ...


class Tallied(Rule, Protocol):
    """A loss of how all positives and all negatives of the table are spread: both are counted first; no strip."""

    def tally(self, xp: Namespace, s: Array, weight: Array) -> Array:
        """Weight of pairs at measure ``s`` at each node of a histogram, float64; what weighs 0 counts for nothing."""
        ...

    def judge(self, xp: Namespace, s: Array, far: Array) -> tuple[Array, Array]:
        """Loss and derivative of positives at measure ``s``, given the counts of all negatives."""
        ...

    def push(self, xp: Namespace, s: Array, near: Array, far: Array) -> Array:
        """Derivative by negatives at measure ``s``, given the counts of all positives and of all negatives."""
        ...


class Apart(Rule, Protocol):
    """A sum over pairs: what a pair costs depends on nothing but its own measure and side."""

    @property
    def reach(self) -> float:
        """Measure from which on a negative neither costs nor weighs anything; ∞ where there is none."""
        ...

    def factors_of(self, xp: Namespace, pair: Pair, like: Array) -> tuple[Array | float, Array | float]:
        """What stands before a positive's and a negative's loss."""
        ...

    def positive(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """Loss and derivative of positives at measure ``s``."""
        ...

    def negative(self, xp: Namespace, s: Array) -> tuple[Array, Array]:
        """The same for negatives, both 0 at infinite distance; may overwrite ``s``."""
        ...


def pooled(loss: Pooled, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
    """The strip of a pooled loss."""
    positive = pair.take(s)
    if getattr(loss, "mines", False):
        positive, s = mined(cast("Mined", loss), xp, positive, s, pair)
    z, slope = loss.exponent(xp, s)
    z = pair.negative_logits(z)
    pool, weight, total = exp_sum(xp, z)
    value, by_pool, by_positive = loss.combine(xp, positive, pool, pair)
    weight = felt(xp, weight, by_pool / at_least(xp, total, 1.0), slope)
    return value, pair.add(weight, by_positive)


def mined(loss: Mined, xp: Namespace, positive: Array, s: Array, pair: Pair) -> tuple[Array, Array]:
    """Positives and negatives that mining keeps, the others as far on their own side as can be; overwrites ``s``."""
    s = pair.negatives(s, -INF)
    most = where(xp, xp.any(s != -INF, axis=1, keepdims=True), row_max(xp, s), -INF)
    kept = loss.counts(xp, s, loss.least(xp, positive, pair))
    return loss.hard(xp, positive, most, pair), without(xp, s, kept)


def parts_of(loss: Rule) -> str | None:
    """Which parts are all of a loss's rule: "pooled" or "apart"; None where there are none.

    A loss that has the parts and yet looks at an anchor's whole row (mining) says so with ``in_parts = False``.
    """
    whole = any(getattr(loss, way, None) is not None for way in ("couple", "tally", "passes"))
    if whole or not getattr(loss, "in_parts", True):
        return None
    return "pooled" if hasattr(loss, "combine") else "apart" if hasattr(loss, "factors_of") else None


def felt(xp: Namespace, weight: Array, factor: Array, slope: Array | float) -> Array:
    """``weight · factor · slope`` in place."""
    if isinstance(slope, int | float) or slope.ndim == 0:
        weight *= factor * slope
        return weight
    weight *= factor
    weight *= slope
    return weight


def apart(loss: Apart, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
    """The strip of a loss that is a sum over pairs: what is no negative stands infinitely far."""
    up, down = loss.factors_of(xp, pair, s)
    near, pull = loss.positive(xp, pair.take(s))
    off, push = loss.negative(xp, pair.negatives(s, loss.measure.farthest))
    value = up * xp.sum(times(xp, pair.weight, near), axis=1) + down * xp.sum(pair.weigh(off), axis=1)
    push = pair.weigh(push)
    push *= down
    return value, pair.add(push, up * times(xp, pair.weight, pull))
