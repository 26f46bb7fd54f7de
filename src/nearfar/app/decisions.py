"""From scores to an answer a person can act on. A score that is not a number is refused, never a match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar._errors import DataError
from nearfar.app.calibration import Calibration


@dataclass(frozen=True)
class Verdict:
    """Whether two items are of the same class.

    Args:
        same: The decision: ``score >= threshold``.
        score: Cosine of the two embeddings.
        threshold: Where "same" begins.
        probability: Probability of "same" if both answers are equally likely beforehand.
        fmr: The false-match rate that the threshold aims at.
        certified: Whether that rate is promised, or an estimate only.
        words: The reason in words.
    """

    same: bool
    score: float
    threshold: float
    probability: float
    fmr: float
    certified: bool
    words: str


@dataclass(frozen=True)
class Answer:
    """Which enrolled class an item is of.

    Args:
        label: The class; None for "unknown".
        score: Cosine to the nearest class.
        threshold: Where "known" begins.
        nearest: The nearest class, known or not.
        words: The reason in words.
    """

    label: str | None
    score: float
    threshold: float
    nearest: str
    words: str


def verdict(score: float, calibration: Calibration) -> Verdict:
    """Same or different, by the score of two items.

    Args:
        score: Cosine of their embeddings.
        calibration: Of the model that embedded them.

    Returns:
        The verdict.

    Raises:
        DataError: The score is not finite.
    """
    value = float(_finite([score])[0])
    limit = calibration.verify
    same = value >= limit.value
    probability = float(calibration.probability.probability(value, prior=0.5))
    side, promise = "at or above" if same else "below", "certified" if limit.certified else "estimate only"
    words = (
        f"similarity {value:.3f} is {side} the threshold {limit.value:.3f} for a false-match rate of "
        f"{limit.fmr_target:.2%} ({promise}); probability of same {probability:.1%} at even odds"
    )
    return Verdict(same, value, limit.value, probability, limit.fmr_target, limit.certified, words)


def answer(scores: ArrayLike, classes: Sequence[str], calibration: Calibration) -> Answer:
    """The nearest class, or "unknown", by the scores of one item against all classes.

    Args:
        scores: Cosine to the reference of each class, shape (classes,).
        classes: Their names.
        calibration: Of the model that embedded them.

    Returns:
        The answer.

    Raises:
        DataError: A score is not finite.
    """
    values = _finite(scores)
    best = int(np.argmax(values))
    score, nearest, limit = float(values[best]), classes[best], calibration.classify
    known = score >= limit.threshold
    words = (
        f"similarity {score:.3f} to {nearest}, the nearest of {len(classes)} classes, is "
        f"{'at or above' if known else 'below'} the threshold {limit.threshold:.3f} that lets "
        f"{limit.fpir:.0%} of unknown items through"
    )
    return Answer(nearest if known else None, score, limit.threshold, nearest, words)


def _finite(scores: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError("expected finite scores, got NaN, infinity or none; nothing is decided on them")
    return values
