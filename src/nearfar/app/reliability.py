"""Whether a probability of "same" can be believed, at even odds, on pairs of classes it was not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearfar.app.resampling import DrawnPairs
from nearfar.metrics import PairScores, Platt

PRIOR = 0.5
BINS = 15
_DRAWS = 400
Array = NDArray[np.float64]


def reliability(pairs: PairScores, calibration: Platt, prior: float = PRIOR) -> dict[str, Any]:
    """Calibration error, Brier score and the points of the reliability plot.

    Pairs are weighted so that the same ones make up the prior share:
    ``ECE = Σ_b m_b |mean p − share of same|`` over bins of equal mass m_b; ``Brier = Σ_i w_i (p_i − y_i)²``.

    Args:
        pairs: scores of the classes judged.
        calibration: turns a score into a probability.
        prior: share of same pairs it is judged at.

    Returns:
        `ece` and `brier` with class-bootstrap intervals, `prior`, and `bins`, each with `probability`,
        `frequency` and `count`.

    Example:
        >>> from nearfar.app.reliability import reliability
        >>> from nearfar.metrics import Platt, pair_scores
        >>> pairs = pair_scores([[1, 9, 0, 0], [9, 1, 0, 0], [0, 0, 1, 9], [0, 0, 9, 1]], [0, 0, 1, 1])
        >>> round(reliability(pairs, Platt(slope=2.0, intercept=-9.0, prior=0.5))["brier"]["value"], 6)
        0.0
    """
    table = _Table(pairs, calibration, prior)
    drawn = DrawnPairs(pairs)
    mass, probability, frequency, count = table.bins(np.ones(pairs.unit_count))
    used = mass > 0
    return {
        "prior": prior,
        "ece": drawn.interval(table.ece, _DRAWS).as_dict(),
        "brier": drawn.interval(table.brier, _DRAWS).as_dict(),
        "bins": [
            {"probability": float(p), "frequency": float(f), "count": int(n)}
            for p, f, n in zip(probability[used], frequency[used], count[used], strict=True)
        ],
    }


class _Table:
    """All pairs in the order of their probability."""

    def __init__(self, pairs: PairScores, calibration: Platt, prior: float) -> None:
        scores = np.concatenate([pairs.genuine, pairs.impostor])
        p = np.nan_to_num(calibration.probability(scores, prior=prior))
        order = np.argsort(p, kind="stable")
        same = np.arange(len(p)) < len(pairs.genuine)
        none = np.full(len(pairs.genuine), -1)
        self.prior, self.p, self.same = prior, p[order], same[order]
        self._a = np.concatenate([pairs.genuine_unit, pairs.impostor_left])[order]
        self._b = np.concatenate([none, pairs.impostor_right])[order]  # a same pair has one class
        self._level = np.unique(self.p, return_inverse=True)[1]

    def ece(self, draw: Array) -> float:
        """Expected calibration error under drawn classes; NaN without both kinds of pairs."""
        mass, probability, frequency, _ = self.bins(draw)
        return float((mass * np.abs(probability - frequency)).sum())

    def brier(self, draw: Array) -> float:
        """Brier score under drawn classes; NaN without both kinds of pairs."""
        return float(self._weights(draw) @ (self.p - self.same) ** 2)

    def bins(self, draw: Array) -> tuple[Array, Array, Array, Array]:
        """Mass, mean probability, share of same and number of pairs of each bin of equal mass."""
        w = self._weights(draw)
        if np.isnan(w[0]):
            return (np.full(BINS, np.nan),) * 4
        level = np.bincount(self._level, weights=w)
        shared = np.bincount(self._level, weights=w * self.same) / np.where(level > 0, level, 1.0)
        place = np.clip(((np.cumsum(w) - w / 2) * BINS).astype(np.int64), 0, BINS - 1)
        mass = np.bincount(place, weights=w, minlength=BINS).astype(np.float64)
        safe = np.where(mass > 0, mass, 1.0)
        probability = np.bincount(place, weights=w * self.p, minlength=BINS) / safe
        frequency = np.bincount(place, weights=w * shared[self._level], minlength=BINS) / safe
        return mass, probability, frequency, np.bincount(place, minlength=BINS).astype(np.float64)

    def _weights(self, draw: Array) -> Array:
        """Weights of the pairs that sum to 1, the prior of it on same pairs; NaN without both kinds."""
        w = draw[self._a] * np.where(self._b >= 0, draw[self._b], 1.0)
        same = float(w[self.same].sum())
        different = float(w.sum()) - same
        if same <= 0 or different <= 0:
            return np.full(len(w), np.nan)
        scaled: Array = w * np.where(self.same, self.prior / same, (1 - self.prior) / different)
        return scaled
