"""Verification: same or different, over pairs (ISO/IEC 19795-1).

A comparison is accepted when ``score >= threshold``; scores are higher for nearer and may be any real
numbers. FMR(t) is the share of different-class comparisons accepted, FNMR(t) the share of same-class
comparisons rejected. A NaN score is a failed comparison: it counts, and it is never accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, ShapeError
from nearfar.metrics._checks import Array, class_index, label_array, real_array, score_array, share


@dataclass(frozen=True)
class PairScores:
    """Scores of all unordered pairs of distinct items, with the unit (class or group) of each side.

    Attributes:
        genuine: scores of same-class pairs.
        impostor: scores of different-class pairs.
        genuine_unit: unit of each genuine pair, 0 … unit_count − 1.
        impostor_left: unit of the one side of each impostor pair.
        impostor_right: unit of the other side.
        unit_count: how many units there are, the n of every interval.
        unit: what they are, ``classes`` or ``groups``.
    """

    genuine: Array
    impostor: Array
    genuine_unit: NDArray[np.int32]
    impostor_left: NDArray[np.int32]
    impostor_right: NDArray[np.int32]
    unit_count: int
    unit: str = "classes"


class Det(NamedTuple):
    """The detection error trade-off: ``fmr`` falls and ``fnmr`` rises along ``thresholds``."""

    thresholds: Array
    fmr: NDArray[np.float64]
    fnmr: NDArray[np.float64]


def pair_scores(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None) -> PairScores:
    """All unordered pairs i < j of a square score table, none with itself, none left out.

    Args:
        scores: n × n, higher is nearer; the part above the diagonal is read.
        labels: n class labels, integers or strings.
        groups: n group labels when classes are not independent of each other (two eyes of one person): each
            class lies in one group, and intervals then resample groups instead of classes.

    Returns:
        The pairs.

    Raises:
        ShapeError: the shapes do not fit.
        InputError: labels are floats, or a class lies in several groups.

    Example:
        >>> from nearfar.metrics import pair_scores
        >>> pairs = pair_scores([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]], ["a", "a", "b"])
        >>> pairs.genuine.tolist(), pairs.impostor.tolist(), pairs.unit_count
        ([0.9], [0.2, 0.3], 2)
    """
    table = score_array(scores, "scores", 2)
    if table.shape[0] != table.shape[1]:
        raise ShapeError(f"expected square scores, got {table.shape}; compare the items with themselves")
    names = label_array(labels, "labels", len(table))
    classes, class_count = class_index(names)
    units, unit_count = classes, class_count
    if groups is not None:
        units, unit_count = class_index(label_array(groups, "groups", len(table)))
        owner = np.zeros(class_count, dtype=np.int64)
        owner[classes] = units
        if (owner[classes] != units).any():
            split = names[np.argmax(owner[classes] != units)]
            raise InputError(f"expected each class in one group, got class {split!r} in several; merge them")
    left, right = np.triu_indices(len(table), k=1)
    same = classes[left] == classes[right]
    values = table[left, right]
    small = units.astype(np.int32)
    return PairScores(
        genuine=values[same],
        impostor=values[~same],
        genuine_unit=small[left[same]],
        impostor_left=small[left[~same]],
        impostor_right=small[right[~same]],
        unit_count=unit_count,
        unit="classes" if groups is None else "groups",
    )


def det_curve(genuine: ArrayLike, impostor: ArrayLike) -> Det:
    """FMR(t) and FNMR(t) at every score that occurs, and at +inf where all are rejected.

    Args:
        genuine: scores of same-class pairs.
        impostor: scores of different-class pairs.

    Returns:
        Thresholds in ascending order with both rates.

    Raises:
        InputError: one of the two is empty.

    Example:
        >>> from nearfar.metrics import det_curve
        >>> det = det_curve([0.9, 0.4], [0.4, 0.1])
        >>> det.thresholds.tolist(), det.fmr.tolist(), det.fnmr.tolist()
        ([0.1, 0.4, 0.9, inf], [1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 1.0])
    """
    same, different = _both(genuine, impostor)
    cuts = np.unique(np.concatenate([same, different]))
    cuts = np.concatenate([cuts[~np.isnan(cuts)], np.array([np.inf], dtype=cuts.dtype)])
    return Det(cuts, accept_rate(different, cuts), _reject_rate(same, cuts))


def accept_rate(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of scores that are at or above each threshold; NaN scores count and are never accepted.

    Args:
        scores: n scores.
        thresholds: any shape.

    Returns:
        Rates of the shape of ``thresholds``.

    Raises:
        InputError: no scores.

    Example:
        >>> from nearfar.metrics import accept_rate
        >>> accept_rate([0.1, 0.5, float("nan"), 0.9], [0.5, 1.0]).tolist()
        [0.5, 0.0]
    """
    values = score_array(scores, "scores", 1)
    if len(values) == 0:
        raise InputError("expected at least one score, got none; a rate needs comparisons")
    return np.asarray(_accepted(values, thresholds) / len(values), dtype=np.float64)


def _reject_rate(values: Array, thresholds: ArrayLike) -> NDArray[np.float64]:
    return np.asarray((len(values) - _accepted(values, thresholds)) / len(values), dtype=np.float64)


def _accepted(values: Array, thresholds: ArrayLike) -> NDArray[np.int64]:
    usable = np.sort(values[~np.isnan(values)])
    return np.asarray(len(usable) - np.searchsorted(usable, real_array(thresholds, "thresholds"), side="left"))


def fnmr_at_fmr(genuine: ArrayLike, impostor: ArrayLike, fmr: float) -> tuple[float, float]:
    """FNMR at the lowest threshold whose FMR is at most ``fmr``; the target is never exceeded.

    The threshold is the number just above the highest impostor score that has to be rejected, in the dtype
    of the scores. It is fitted to these pairs: for a promise about other pairs see ``threshold_at_fmr``.

    Args:
        genuine: scores of same-class pairs.
        impostor: scores of different-class pairs.
        fmr: target false-match rate, 0.01 for 1 %.

    Returns:
        (FNMR, threshold); the threshold is −inf where every impostor may be accepted.

    Raises:
        InputError: one of the two is empty, or ``fmr`` is not in [0, 1].

    Example:
        >>> from nearfar.metrics import fnmr_at_fmr
        >>> fnmr, threshold = fnmr_at_fmr([3.0, 2.0, -1.0], [2.0, 1.0, 0.0, -5.0], fmr=0.25)
        >>> round(fnmr, 3), threshold > 1.0, round(threshold, 6)
        (0.333, True, 1.0)
    """
    same, different = _both(genuine, impostor)
    usable = np.sort(different[~np.isnan(different)])[::-1]
    allowed = int(allowed_count(share(fmr, "fmr"), np.array(float(len(different)))))
    threshold = just_above(usable, allowed)
    return float(_reject_rate(same, threshold)), threshold


def allowed_count(rate: float, totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest whole number k with k / total <= rate, for each total."""
    count = np.floor(rate * totals)
    safe = np.maximum(totals, 1.0)
    count = np.where((count + 1) / safe <= rate, count + 1, count)
    return np.where(count / safe > rate, count - 1, count)


def just_above(descending: Array, rank: int) -> float:
    """The lowest threshold that rejects ``descending[rank]`` and all after it; −inf where none is left."""
    if rank >= len(descending):
        return float("-inf")
    return float(np.nextafter(descending[rank], np.inf))


def equal_error_rate(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Where FMR = FNMR, interpolated linearly between the two points of the DET curve beside it.

    A summary of the curve, never an operating point.

    Args:
        genuine: scores of same-class pairs.
        impostor: scores of different-class pairs.

    Returns:
        The equal error rate.

    Raises:
        InputError: one of the two is empty.

    Example:
        >>> from nearfar.metrics import equal_error_rate
        >>> equal_error_rate([0.9, 0.8, 0.3], [0.5, 0.2, 0.1])
        0.3333333333333333
    """
    det = det_curve(genuine, impostor)
    fmr = np.concatenate([[1.0], det.fmr])
    fnmr = np.concatenate([[0.0], det.fnmr])
    after = int(np.argmax(fnmr >= fmr))
    gap = fmr[after - 1] - fnmr[after - 1]
    step = gap / (gap + fnmr[after] - fmr[after])
    return float(fmr[after - 1] + step * (fmr[after] - fmr[after - 1]))


def auc(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Probability that a same-class pair scores above a different-class pair; a tie counts half.

    Args:
        genuine: scores of same-class pairs.
        impostor: scores of different-class pairs.

    Returns:
        The area under the ROC curve.

    Raises:
        InputError: one of the two is empty.

    Example:
        >>> from nearfar.metrics import auc
        >>> auc([0.9, 0.5], [0.5, 0.1])
        0.875
    """
    same, different = _both(genuine, impostor)
    same = np.where(np.isnan(same), -np.inf, same)
    ordered = np.sort(np.where(np.isnan(different), -np.inf, different))
    below = np.searchsorted(ordered, same, side="left").astype(np.float64)
    tied = np.searchsorted(ordered, same, side="right") - below
    return float((below + 0.5 * tied).mean() / len(ordered))


def _both(genuine: ArrayLike, impostor: ArrayLike) -> tuple[Array, Array]:
    same = score_array(genuine, "genuine scores", 1)
    different = score_array(impostor, "impostor scores", 1)
    for values, name in ((same, "genuine (same-class)"), (different, "impostor (different-class)")):
        if len(values) == 0:
            raise InputError(f"expected at least one {name} pair, got none; two classes with two items are needed")
    return same, different
