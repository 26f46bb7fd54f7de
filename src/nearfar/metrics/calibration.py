"""From a score to the probability of "same", and how far that probability can be believed.

Judge a calibration on classes that it was not fitted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, expect_whole
from nearfar.metrics._checks import Array, binary, finite_pairs, real_array

_STEPS = 100
_ROUNDING = 1e-13  # of the mean loss: Newton goes on where the loss itself no longer resolves


@dataclass(frozen=True)
class Platt:
    """P(same | score) = 1 / (1 + exp(−(slope·score + intercept))), ``prior`` the share of same pairs."""

    slope: float
    intercept: float
    prior: float

    def probability(self, scores: ArrayLike, prior: float | None = None) -> NDArray[np.float64]:
        """Probability of "same" for each score; NaN stays NaN.

        Args:
            scores: any shape.
            prior: share of same pairs where it will be used; ``None``: as in the data it was fitted on.

        Returns:
            Probabilities of the shape of ``scores``.

        Raises:
            InputError: the prior is not strictly between 0 and 1.

        Example:
            >>> from nearfar.metrics import Platt
            >>> Platt(2.0, -1.0, 0.5).probability([0.5, 3.0]).round(3).tolist()
            [0.5, 0.993]
            >>> Platt(2.0, -1.0, 0.5).probability(0.5, prior=0.1).round(3).item()
            0.1
        """
        shift = 0.0
        if prior is not None:
            if not 0.0 < prior < 1.0:
                raise InputError(f"expected a prior strictly between 0 and 1, got {prior}; 0.5 is even odds")
            shift = _logit(prior) - _logit(self.prior)
        return _sigmoid(self.slope * real_array(scores, "scores") + (self.intercept + shift))


def platt(scores: ArrayLike, same: ArrayLike) -> Platt:
    """Logistic regression of ``same`` on the score with Platt's smoothed targets, by Newton's method.

    Targets are (n₊+1)/(n₊+2) for same and 1/(n₋+2) for different, so the fit is finite on separable data too.

    Args:
        scores: n finite scores on any scale, higher is nearer.
        same: n labels, 1 same, 0 different.

    Returns:
        Slope, intercept and the share of same pairs fitted on.

    Raises:
        ShapeError: the lengths differ.
        InputError: a score is not finite, a label is not 0 or 1, or one of the two kinds is missing.

    Example:
        >>> from nearfar.metrics import platt
        >>> fit = platt([0.9, 0.8, 0.4, 0.6, 0.2, 0.1], [1, 1, 1, 0, 0, 0])
        >>> fit.slope > 0, fit.prior, (fit.probability([0.1, 0.9]) > 0.5).tolist()
        (True, 0.5, [False, True])
    """
    raw, label = finite_pairs(scores, binary(same), "scores and labels", 2)
    positive, negative = int(label.sum()), int((1 - label).sum())
    if positive == 0 or negative == 0:
        raise InputError(f"expected same and different pairs, got {positive} and {negative}; both are needed")
    target = np.where(label == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    centre = float(raw.mean())
    spread = float(np.abs(raw - centre).max())
    x = (raw - centre) / spread if spread > 0 else np.zeros_like(raw)
    slope, intercept = _newton(x, target)
    slope = slope / spread if spread > 0 else 0.0
    return Platt(slope, intercept - slope * centre, positive / len(label))


def brier(probability: ArrayLike, same: ArrayLike) -> float:
    """Brier score: the mean of (p − same)².

    Args:
        probability: n probabilities.
        same: n labels, 1 same, 0 different.

    Returns:
        The score, 0 is perfect.

    Raises:
        ShapeError: the lengths differ.
        InputError: a value is out of range, or none given.

    Example:
        >>> from nearfar.metrics import brier
        >>> brier([1.0, 0.5], [1, 0])
        0.125
    """
    p, y = _checked(probability, same)
    return float(((p - y) ** 2).mean())


def log_loss(probability: ArrayLike, same: ArrayLike) -> float:
    """Mean of −log of the probability given to what was the case; infinite when that was 0.

    Args:
        probability: n probabilities.
        same: n labels, 1 same, 0 different.

    Returns:
        The loss in nats.

    Raises:
        ShapeError: the lengths differ.
        InputError: a value is out of range, or none given.

    Example:
        >>> from nearfar.metrics import log_loss
        >>> round(log_loss([0.5, 0.25], [1, 0]), 4)
        0.4904
    """
    p, y = _checked(probability, same)
    with np.errstate(divide="ignore"):
        return float(-np.where(y == 1, np.log(p), np.log1p(-p)).mean())


def expected_calibration_error(probability: ArrayLike, same: ArrayLike, bins: int = 15) -> float:
    """Σ_bins (n_bin / n) · |mean p − share of same|, over bins of equal numbers of pairs.

    Equal probabilities share their labels evenly, so the order of the data does not matter. torchmetrics' bins are of
    equal width: another number.

    Args:
        probability: n probabilities.
        same: n labels, 1 same, 0 different.
        bins: number of bins; fewer pairs than bins make one bin each.

    Returns:
        The error, 0 is perfect.

    Raises:
        ShapeError: the lengths differ.
        InputError: a value is out of range, none given, or no bins.

    Example:
        >>> from nearfar.metrics import expected_calibration_error
        >>> round(expected_calibration_error([0.2, 0.2, 0.8, 0.8], [0, 0, 1, 1], bins=2), 3)
        0.2
    """
    p, y = _checked(probability, same)
    bins = expect_whole("bins", bins)
    _, first, group, size = np.unique(p, return_index=True, return_inverse=True, return_counts=True)
    shared = np.bincount(group, weights=y, minlength=len(first)) / size
    order = np.argsort(p, kind="stable")
    gaps = np.array_split(p[order] - shared[group][order], min(bins, len(p)))
    return float(sum(abs(gap.sum()) for gap in gaps) / len(p))


def _newton(x: Array, target: Array) -> tuple[float, float]:
    slope, intercept = 0.0, _logit(float(target.mean()))
    value = _cross_entropy(slope * x + intercept, target)
    for _ in range(_STEPS):
        p = _sigmoid(slope * x + intercept)
        gradient = np.array([((p - target) * x).sum(), (p - target).sum()])
        if np.abs(gradient).max() <= 1e-12 * len(x):
            break
        w = p * (1 - p)
        curve = np.array([[(w * x * x).sum(), (w * x).sum()], [(w * x).sum(), w.sum()]])
        step = np.linalg.solve(curve + 1e-12 * len(x) * np.eye(2), gradient)
        size = 1.0
        while True:  # halve the step until the loss falls
            trial = (slope - size * step[0], intercept - size * step[1])
            trial_value = _cross_entropy(trial[0] * x + trial[1], target)
            if trial_value <= value + _ROUNDING or size < 1e-10:
                break
            size /= 2
        (slope, intercept), value = trial, trial_value
    return float(slope), float(intercept)


def _cross_entropy(z: Array, target: Array) -> float:
    return float((np.logaddexp(0.0, z) - target * z).mean())


def _sigmoid(z: Array) -> NDArray[np.float64]:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, e) / (1.0 + e))


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _checked(probability: ArrayLike, same: ArrayLike) -> tuple[Array, Array]:
    p, y = finite_pairs(probability, binary(same), "probabilities and labels", 1)
    if p.min() < 0 or p.max() > 1:
        raise InputError(f"expected probabilities in [0, 1], got {p.min()} … {p.max()}; calibrate the scores first")
    return p, y
