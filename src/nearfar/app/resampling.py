"""Verification numbers under drawn classes: what a bootstrap over classes evaluates again and again.

A class drawn w times makes its same pairs count w times, and a pair of classes a and b w_a · w_b times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nearfar.metrics import Interval, PairScores, class_bootstrap

Weights = NDArray[np.float64]
_MANY = 300_000  # pairs from which fewer draws are made


class DrawnPairs:
    """Pairs sorted once, so that each draw of classes costs two running sums.

    Args:
        pairs: scores from `nearfar.metrics.pair_scores`.

    Example:
        >>> import numpy as np
        >>> from nearfar.app.resampling import DrawnPairs
        >>> from nearfar.metrics import pair_scores
        >>> pairs = pair_scores([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]], ["a", "a", "b"])
        >>> DrawnPairs(pairs).auc(np.ones(2))
        1.0
    """

    def __init__(self, pairs: PairScores) -> None:
        genuine, impostor = _ranked(pairs.genuine), _ranked(pairs.impostor)
        order_same, order_different = (
            np.argsort(-genuine, kind="stable"),
            np.argsort(-impostor, kind="stable"),
        )
        self.count, self.unit = pairs.unit_count, pairs.unit
        self.size = len(genuine) + len(impostor)
        self._same = genuine[order_same]
        self._different = impostor[order_different]
        self._owner = pairs.genuine_unit[order_same]
        self._left, self._right = pairs.impostor_left[order_different], pairs.impostor_right[order_different]
        self._above = np.searchsorted(-self._different, -self._same, side="left")
        self._level = np.searchsorted(-self._different, -self._same, side="right")

    def fnmr_at_fmr(self, weights: Weights, fmr: float) -> float:
        """Share of same pairs no higher than the first different pair to be rejected; NaN if undefined."""
        same, different = self._sums(weights)
        if same[-1] == 0 or different[-1] == 0:
            return float("nan")
        spent = int(np.searchsorted(different[1:], fmr * different[-1] * (1 + 1e-12), side="right"))
        if spent == len(self._different):
            return 0.0
        accepted = int(np.searchsorted(-self._same, -self._different[spent], side="left"))
        return float(1 - same[accepted] / same[-1])

    def auc(self, weights: Weights) -> float:
        """Probability that a same pair scores above a different one, ties half; NaN if undefined."""
        same, different = self._sums(weights)
        if same[-1] == 0 or different[-1] == 0:
            return float("nan")
        beaten = 1 - (different[self._above] + different[self._level]) / (2 * different[-1])
        return float(weights[self._owner] @ beaten / same[-1])

    def eer(self, weights: Weights) -> float:
        """Where the two error rates meet, between the cuts beside it; NaN if undefined."""
        same, different = self._sums(weights)
        if same[-1] == 0 or different[-1] == 0:
            return float("nan")
        cuts = np.unique(np.concatenate([self._same, self._different]))
        fmr = different[np.searchsorted(-self._different, -cuts, side="right")] / different[-1]
        fnmr = 1 - same[np.searchsorted(-self._same, -cuts, side="right")] / same[-1]
        fmr, fnmr = np.concatenate([[1.0], fmr, [0.0]]), np.concatenate([[0.0], fnmr, [1.0]])
        after = int(np.argmax(fnmr >= fmr))
        gap = fmr[after - 1] - fnmr[after - 1]
        step = gap / (gap + fnmr[after] - fmr[after])
        return float(fmr[after - 1] + step * (fmr[after] - fmr[after - 1]))

    def interval(self, statistic: Callable[[Weights], float], draws: int = 2000) -> Interval:
        """The statistic with its 95 % class-bootstrap interval; a tenth of the draws where pairs are many."""
        draws = draws if self.size <= _MANY else max(100, draws // 10)
        found = class_bootstrap(statistic, self.count, draws=draws)
        return Interval(found.value, found.low, found.high, found.n, self.unit)

    def _sums(self, weights: Weights) -> tuple[Weights, Weights]:
        """Running sums of the pairs' weights from the highest score down, each with a zero before it."""
        return _running(weights[self._owner]), _running(weights[self._left] * weights[self._right])


def rates_at(pairs: PairScores, threshold: float) -> tuple[Interval, Interval]:
    """(FMR, FNMR) at a threshold that was fixed before, with class-bootstrap intervals.

    Args:
        pairs: scores from `nearfar.metrics.pair_scores`.
        threshold: a pair is accepted from this score upwards.

    Returns:
        Two intervals.

    Example:
        >>> from nearfar.app.resampling import rates_at
        >>> from nearfar.metrics import pair_scores
        >>> scores = [[1, 0.9, 0.2, 0.1], [0.9, 1, 0.6, 0.2], [0.2, 0.6, 1, 0.4], [0.1, 0.2, 0.4, 1]]
        >>> fmr, fnmr = rates_at(pair_scores(scores, ["a", "a", "b", "b"]), 0.5)
        >>> fmr.value, fnmr.value
        (0.25, 0.5)
    """
    n = pairs.unit_count
    same = np.bincount(pairs.genuine_unit, minlength=n)
    missed = np.bincount(pairs.genuine_unit[~(pairs.genuine >= threshold)], minlength=n)
    cell = pairs.impostor_left.astype(np.int64) * n + pairs.impostor_right
    different = np.bincount(cell, minlength=n * n).reshape(n, n)
    accepted = np.bincount(cell[pairs.impostor >= threshold], minlength=n * n).reshape(n, n)
    fmr = class_bootstrap(lambda w: _share(float(w @ accepted @ w), float(w @ different @ w)), n)
    fnmr = class_bootstrap(lambda w: _share(float(w @ missed), float(w @ same)), n)
    return fmr, fnmr


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _running(values: Weights) -> Weights:
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _ranked(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """A comparison that failed (NaN) is the farthest of all."""
    return np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
