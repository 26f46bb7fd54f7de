"""A threshold with a promise: "of 1,000 different pairs expect at most 10 accepted, 95 % confidence".

Pairs are not independent trials: one unlucky class spoils all pairs it is in. So the upper limit of FMR at a
threshold is the larger of two that count classes, not pairs: the quantile of the vertex bootstrap, and
Wilson's limit with the two-way (dyadic) cluster variance. Calibrate on classes that neither training nor the
choice of the model has seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nearfar._errors import InputError
from nearfar.metrics._bootstrap import accepted_shares, draw_weights, sort_impostors, spent_ranks
from nearfar.metrics._checks import score_array, share
from nearfar.metrics._wilson import WilsonLimit
from nearfar.metrics.verification import PairScores, accept_rate, allowed_count, just_above

CLASSES_FOR_FMR = ((0.01, 20), (0.001, 40))
"""(FMR, classes): certified down to this FMR from so many classes; simulation found too little with fewer."""


@dataclass(frozen=True)
class Threshold:
    """A decision threshold (same when ``score >= value``) and what is promised of it.

    Attributes:
        value: the threshold.
        fmr_target: the false-match rate asked for.
        fmr_upper: upper confidence limit of the false-match rate at ``value``.
        certified: whether the promise is given.
        classes: how many independent classes (or groups) it rests on.
        reason: in words, why or why not.
        smallest_fmr: smallest rate this data can certify, ``None`` if none.
        classes_missing: how many more classes the target needs; 0 when certified, ``None`` if no number is
            known.
    """

    value: float
    fmr_target: float
    fmr_upper: float
    certified: bool
    classes: int
    reason: str
    smallest_fmr: float | None
    classes_missing: int | None


def threshold_at_fmr(
    pairs: PairScores, fmr: float, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Threshold:
    """Lowest threshold from which the upper limit of FMR stays at or below ``fmr``.

    Certified only from 20 classes for FMR of 1 % or more and from 40 for 0.1 % or more. Otherwise the
    empirical threshold is returned, ``certified`` is false and the reason says ``estimate only``.

    Args:
        pairs: scores of calibration classes, from ``pair_scores``.
        fmr: target false-match rate, strictly between 0 and 1.
        confidence: one-sided.
        draws: bootstrap draws.
        seed: of the draws.

    Returns:
        The threshold with its reason.

    Raises:
        InputError: a rate out of range, no pairs of one kind, or fewer than two classes.

    Example:
        >>> import numpy as np
        >>> from nearfar.metrics import pair_scores, threshold_at_fmr
        >>> labels = np.arange(120) // 4                                 # 30 classes of 4
        >>> x = np.random.default_rng(3).normal(0, 1, (30, 8))[labels]
        >>> x += np.random.default_rng(4).normal(0, 0.3, x.shape)
        >>> pairs = pair_scores(-np.linalg.norm(x[:, None] - x, axis=2), labels)
        >>> found = threshold_at_fmr(pairs, 0.05, draws=200)
        >>> found.certified, found.fmr_upper <= 0.05
        (True, True)
        >>> found = threshold_at_fmr(pairs, 0.001, draws=200)
        >>> found.certified, found.reason[:13]
        (False, 'estimate only')
    """
    if not (0.0 < share(fmr, "fmr") < 1.0 and 0.5 <= share(confidence, "confidence") < 1.0):
        raise InputError(f"expected fmr in (0, 1) and confidence in [0.5, 1), got {fmr} and {confidence}; 1 % is 0.01")
    impostors = sort_impostors(pairs)
    weights = draw_weights(pairs.unit_count, draws, seed)
    allowed = int(allowed_count(fmr, np.array(float(impostors.total))))
    empirical = impostors.above(allowed)
    wilson = WilsonLimit(impostors, empirical, confidence)
    beyond = math.floor((1.0 - confidence) * draws)  # draws that may exceed the limit
    ranks = np.sort(spent_ranks(impostors, weights, fmr))
    cautious = impostors.above(int(ranks[beyond]))
    cautious = min(cautious, empirical)
    rank = wilson.last_within(cautious, fmr)
    least = float(wilson.upper(0)[0])
    needed = _classes_needed(fmr, pairs.unit_count, least)
    certified = rank is not None and needed is not None and pairs.unit_count >= needed
    chosen = rank if certified and rank is not None else empirical
    drawn = np.sort(accepted_shares(impostors, weights, chosen))[draws - 1 - beyond]
    smallest = _smallest(pairs.unit_count, least)
    missing = None if needed is None else max(0, needed - pairs.unit_count)
    upper = max(float(drawn), float(wilson.upper(chosen)[chosen]))
    reason = _reason(fmr, confidence, pairs, certified, missing, smallest)
    return Threshold(
        value=just_above(impostors.scores, chosen),
        fmr_target=float(fmr),
        fmr_upper=upper,
        certified=certified,
        classes=pairs.unit_count,
        reason=reason,
        smallest_fmr=smallest,
        classes_missing=missing,
    )


def open_set_threshold(max_impostor_scores: ArrayLike, fpir: float) -> float:
    """Lowest threshold at which at most ``fpir`` of the searches by unknown items return a candidate.

    Each score is the **highest** of one search over the whole gallery, so the threshold belongs to that
    gallery size: FPIR grows with the gallery, about 1 − (1 − FMR)^N. Never use a verification threshold here.

    Args:
        max_impostor_scores: the highest score of each search by an item that is not enrolled.
        fpir: target false-positive identification rate.

    Returns:
        The threshold; a candidate is returned when ``score >= threshold``.

    Raises:
        InputError: no scores, or a rate outside [0, 1].

    Example:
        >>> from nearfar.metrics import fpir, open_set_threshold
        >>> best = [0.1, 0.2, 0.3, 0.9]
        >>> threshold = open_set_threshold(best, fpir=0.25)
        >>> round(threshold, 6), fpir(best, threshold)
        (0.3, 0.25)
    """
    scores = score_array(max_impostor_scores, "max_impostor_scores", 1)
    if len(scores) == 0:
        raise InputError("expected at least one search by an unknown item, got none; hold some classes back")
    usable = np.sort(scores[~np.isnan(scores)])[::-1]
    allowed = int(allowed_count(share(fpir, "fpir"), np.array(float(len(scores)))))
    return just_above(usable, allowed)


def fpir(max_impostor_scores: ArrayLike, threshold: float) -> float:
    """False-positive identification rate: share of searches by unknown items that return any candidate.

    Args:
        max_impostor_scores: the highest score of each search by an item that is not enrolled.
        threshold: a candidate is returned when ``score >= threshold``.

    Returns:
        The rate at this gallery size.

    Raises:
        InputError: no scores.

    Example:
        >>> from nearfar.metrics import fpir
        >>> fpir([0.1, 0.5, 0.9], 0.5)
        0.6666666666666666
    """
    return float(accept_rate(max_impostor_scores, threshold))


def tpir(mate_scores: ArrayLike, max_other_scores: ArrayLike | None = None, *, threshold: float) -> float:
    """True-positive identification rate, 1 − FNIR: share of searches by enrolled items that find their mate.

    Args:
        mate_scores: the highest score of each search among the references of its own class.
        max_other_scores: the highest score among all other references; given, the mate must also come first
            (a tie counts half); ``None``: the mate only has to be at or above the threshold.
        threshold: a candidate is returned when ``score >= threshold``.

    Returns:
        The rate at this gallery size.

    Raises:
        ShapeError: the lengths differ.
        InputError: no scores.

    Example:
        >>> from nearfar.metrics import tpir
        >>> mates, others = [0.9, 0.6, 0.2, 0.8], [0.1, 0.7, 0.1, 0.8]
        >>> tpir(mates, threshold=0.5), tpir(mates, others, threshold=0.5)
        (0.75, 0.375)
    """
    mates = score_array(mate_scores, "mate_scores", 1)
    if max_other_scores is None:
        return float(accept_rate(mates, threshold))
    others = score_array(max_other_scores, "max_other_scores", 1)
    if others.shape != mates.shape or len(mates) == 0:
        raise InputError(f"expected as many others as mates, got {len(others)} and {len(mates)}; one for each search")
    rival = np.where(np.isnan(others), -np.inf, others)
    first = np.where(mates > rival, 1.0, np.where(mates == rival, 0.5, 0.0))
    return float((first * (mates >= threshold)).mean())


def _classes_needed(fmr: float, classes: int, least: float) -> int | None:
    """Classes for this target by the rule; more where rejecting every impostor leaves too high a limit."""
    ruled = [needed for rate, needed in CLASSES_FOR_FMR if fmr >= rate]
    if not ruled:
        return None
    if least <= fmr:
        return ruled[0]
    odds = least / (1 - least) * (1 - fmr) / fmr  # pairs of classes grow with the square of classes
    return max(ruled[0], classes + 1, math.ceil(classes * math.sqrt(odds)))


def _smallest(classes: int, least: float) -> float | None:
    ruled = [rate for rate, needed in CLASSES_FOR_FMR if classes >= needed]
    return max(ruled[-1], least) if ruled else None


def _reason(
    fmr: float,
    confidence: float,
    pairs: PairScores,
    certified: bool,
    missing: int | None,
    smallest: float | None,
) -> str:
    have = f"{pairs.unit_count} calibration {pairs.unit}"
    if certified:
        return (
            f"certified: of 1,000 different pairs expect at most {1000 * fmr:g} accepted, "
            f"{100 * confidence:g} % confidence, from {have}"
        )
    can = "none" if smallest is None else f"{100 * smallest:.3g} %"
    if missing is None:
        more = "no number of classes is known to certify a rate below 0.1 %"
    elif missing:
        more = f"about {missing} more {pairs.unit} are needed"
    else:
        more = f"the upper limit stays above the target at every threshold; add {pairs.unit}"
    return (
        f"estimate only: FMR {100 * fmr:g} % cannot be certified from {have}; {more}; "
        f"smallest FMR this data can certify: {can}"
    )
