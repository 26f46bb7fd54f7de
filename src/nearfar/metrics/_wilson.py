"""Wilson's upper limit of FMR when pairs that share a class are dependent (Fogliato, Patil, Perona 2023)."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from nearfar.metrics._bootstrap import Impostors
from nearfar.metrics._checks import Array

_COUNTABLE = 10  # accepted impostors from which their variance over classes can be estimated


class WilsonLimit:
    """Wilson's upper limit when the j highest impostors are accepted, for all j at once.

    The variance of FMR p̂ over dyads (Σ over pairs of pairs that share a unit of the product of residuals) is
    (Σ_a S_a² − Σ_ab E_ab²) / n², with S_a the residuals of the pairs that touch unit a and E_ab those of the
    pairs between a ≠ b. Sums of squared counts grow by 2·count + 1 with each accepted pair, so one pass
    gives all j.
    """

    def __init__(self, impostors: Impostors, reference_rank: int, confidence: float) -> None:
        self.impostors = impostors
        self.z = NormalDist().inv_cdf(confidence)
        table = impostors.pair_table
        both = table + table.T - np.diag(np.diag(table))
        self.touching = both.sum(axis=1)
        self.between = np.triu(both, k=1)
        self.units = len(table)
        effect = float(self._design_effect(reference_rank)[reference_rank])
        if reference_rank < _COUNTABLE:  # then all pairs between two classes count as one trial
            effect = max(effect, impostors.total / np.count_nonzero(np.triu(both)))
        self.least_effect = effect

    def upper(self, last: int) -> NDArray[np.float64]:
        """The limit for j = 0 … last; design effect at least that of the empirical threshold."""
        total = self.impostors.total
        p = np.arange(last + 1) / total
        n = total / np.maximum(self._design_effect(last), self.least_effect)
        square = self.z**2
        root = np.sqrt(p * (1 - p) / n + square / (4 * n * n))
        return np.asarray((p + square / (2 * n) + self.z * root) / (1 + square / n))

    def last_within(self, last: int, target: float) -> int | None:
        """The largest number accepted, at most ``last``, up to which the limit stays within the target."""
        scores = self.impostors.scores[: last + 1]
        edge = np.ones(last + 1, dtype=bool)  # a threshold cannot cut through equal scores
        inside = min(last, len(scores) - 1)
        edge[1 : inside + 1] = scores[1 : inside + 1] != scores[:inside]
        usable = np.flatnonzero(edge)
        over = self.upper(last)[usable] > target
        good = int(np.argmax(over)) if over.any() else len(usable)
        return None if good == 0 else int(usable[good - 1])

    def _design_effect(self, last: int) -> NDArray[np.float64]:
        """Dyadic variance ÷ variance of independent pairs, for j = 0 … last; at least 1, and 0 at j = 0."""
        left = self.impostors.left[:last].astype(np.int64)
        right = self.impostors.right[:last].astype(np.int64)
        sides = np.stack([left, np.where(left == right, -1, right)], axis=1).ravel()
        cell = np.minimum(left, right) * self.units + np.maximum(left, right)
        cell = np.where(left == right, -1, cell)  # a pair inside one unit is in one S_a only
        n, p = self.impostors.total, np.arange(last + 1) / self.impostors.total
        dyads = self._squares(sides, self.touching, 2, p)
        same = self._squares(cell, self.between.ravel(), 1, p)
        variance = (dyads - same) * self.units / max(self.units - 1, 1)
        plain = n * p * (1 - p)
        ratio = np.divide(variance, plain, out=np.zeros_like(plain), where=plain > 0)
        return np.where(plain > 0, np.maximum(ratio, 1.0), 0.0)

    @staticmethod
    def _squares(keys: NDArray[np.int64], sizes: Array, each: int, p: Array) -> NDArray[np.float64]:
        """Σ_key (accepted − p·size)² after 0, 1, … accepted pairs, each bringing ``each`` keys (−1: none)."""
        used = keys >= 0
        seen = _seen_before(keys)
        square = np.where(used, 2.0 * seen + 1.0, 0.0).reshape(-1, each).sum(axis=1)
        cross = np.where(used, sizes[np.where(used, keys, 0)], 0.0).reshape(-1, each).sum(axis=1)
        squares = np.concatenate([[0.0], np.cumsum(square)])
        crosses = np.concatenate([[0.0], np.cumsum(cross)])
        return np.asarray(squares - 2 * p * crosses + p * p * float((sizes**2).sum()))


def _seen_before(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each key occurred earlier in the list."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    start = np.ones(len(keys), dtype=bool)
    start[1:] = ordered[1:] != ordered[:-1]
    place = np.arange(len(keys))
    seen = np.empty(len(keys), dtype=np.int64)
    seen[order] = place - np.maximum.accumulate(np.where(start, place, 0))
    return seen
