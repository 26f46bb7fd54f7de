"""Intervals that count what is independent: test classes and folds, never pairs or queries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, expect_whole
from nearfar.metrics._bootstrap import draw_weights, rejected_shares, sort_impostors, spent_ranks
from nearfar.metrics._checks import class_index, finite_pairs, label_array, score_array, share
from nearfar.metrics.verification import PairScores, fnmr_at_fmr


@dataclass(frozen=True)
class Interval:
    """A value with the limits of its interval, and n of what it rests on."""

    value: float
    low: float
    high: float
    n: int
    unit: str

    def as_dict(self) -> dict[str, float | int | str]:
        """The five fields for JSON.

        Example:
            >>> from nearfar.metrics import Interval
            >>> Interval(0.5, 0.25, 0.75, 8, "folds").as_dict()
            {'value': 0.5, 'low': 0.25, 'high': 0.75, 'n': 8, 'unit': 'folds'}
        """
        return asdict(self)


def class_bootstrap(
    statistic: Callable[[NDArray[np.float64]], float],
    class_count: int,
    *,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of any statistic when the test classes are drawn again with replacement.

    Args:
        statistic: takes the weight of each class (how often it was drawn; all ones for the value itself) and
            returns a number, NaN where it is not defined.
        class_count: number of test classes, at least 2.
        draws: bootstrap draws.
        seed: of the draws.
        confidence: coverage aimed at, two-sided.

    Returns:
        The interval, n in classes.

    Raises:
        InputError: fewer than two classes, or the statistic is defined in no draw.

    Example:
        >>> import numpy as np
        >>> from nearfar.metrics import class_bootstrap
        >>> error = np.array([0.0, 0.1, 0.2, 0.5])
        >>> found = class_bootstrap(lambda w: float(w @ error / w.sum()), 4, draws=200, seed=1)
        >>> found.value, found.low < 0.2 < found.high, found.n, found.unit
        (0.2, True, 4, 'classes')
    """
    if not callable(statistic):
        raise InputError(f"expected statistic to be a function of weights, got {type(statistic).__name__}; pass one")
    weights = draw_weights(class_count, draws, seed)
    values = np.array([statistic(column) for column in weights.T])
    return _percentiles(float(statistic(np.ones(class_count))), values, confidence, class_count, "classes")


def verification_interval(
    pairs: PairScores, fmr: float, *, draws: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """FNMR at ``fmr`` with its vertex-bootstrap interval: threshold and error both found anew.

    Args:
        pairs: scores from ``pair_scores``.
        fmr: target false-match rate.
        draws: bootstrap draws.
        seed: of the draws.
        confidence: coverage aimed at, two-sided.

    Returns:
        The interval, n in classes (or groups).

    Raises:
        InputError: no pairs of one kind, or fewer than two units.

    Example:
        >>> import numpy as np
        >>> from nearfar.metrics import pair_scores, verification_interval
        >>> labels = np.arange(40) // 4
        >>> x = labels + np.random.default_rng(3).normal(0, 0.4, 40)
        >>> found = verification_interval(pair_scores(-abs(x[:, None] - x), labels), fmr=0.05, draws=200)
        >>> found.low <= found.value <= found.high, found.n, found.unit
        (True, 10, 'classes')
    """
    impostors = sort_impostors(pairs)
    value, _ = fnmr_at_fmr(pairs.genuine, pairs.impostor, fmr)
    weights = draw_weights(pairs.unit_count, draws, seed)
    ranks = spent_ranks(impostors, weights, share(fmr, "fmr"))
    drawn = rejected_shares(pairs, impostors, weights, ranks)
    return _percentiles(value, drawn, confidence, pairs.unit_count, pairs.unit)


def retrieval_interval(
    per_query: ArrayLike,
    query_classes: ArrayLike,
    *,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of a retrieval metric with its interval over classes: all queries of a class are drawn together.

    Args:
        per_query: one value for each query; NaN (no relevant reference) is left out.
        query_classes: the class of each query.
        draws: bootstrap draws.
        seed: of the draws.
        confidence: coverage aimed at, two-sided.

    Returns:
        The interval, n in classes that have a value.

    Raises:
        ShapeError: the lengths differ.
        InputError: fewer than two classes have a value.

    Example:
        >>> from nearfar.metrics import retrieval_interval
        >>> found = retrieval_interval([1.0, 0.0, 1.0, float("nan")], ["a", "a", "b", "c"], draws=100)
        >>> round(found.value, 3), found.n
        (0.667, 2)
    """
    values = score_array(per_query, "per_query values", 1).astype(np.float64)
    names = label_array(query_classes, "query_classes", len(values))
    usable = ~np.isnan(values)
    index, count = class_index(names[usable])
    weights = draw_weights(count, draws, seed)
    sums = np.bincount(index, weights=values[usable], minlength=count)
    drawn = (sums @ weights) / (np.bincount(index, minlength=count) @ weights)
    return _percentiles(float(values[usable].mean()), drawn, confidence, count, "classes")


def mean_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n − 1; NaN for one value).

    Args:
        values: n finite values, one for each fold or seed.

    Returns:
        (mean, sd).

    Raises:
        InputError: none given, or one is not finite.

    Example:
        >>> from nearfar.metrics import mean_sd
        >>> mean_sd([1.0, 2.0, 6.0])[0], round(mean_sd([1.0, 2.0, 6.0])[1], 4)
        (3.0, 2.6458)
    """
    array, _ = finite_pairs(values, values, "values", 1)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan


def paired_difference_interval(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Mean of a − b over paired folds (or seeds) with Student's t interval: mean ± t_{n−1} · sd / √n.

    Args:
        a: one value for each fold.
        b: the other method on the same folds, in the same order.
        confidence: coverage aimed at, two-sided.

    Returns:
        The interval of the difference, n in folds.

    Raises:
        ShapeError: the lengths differ.
        InputError: fewer than two folds, or a value is not finite.

    Example:
        >>> from nearfar.metrics import paired_difference_interval
        >>> found = paired_difference_interval([0.30, 0.20, 0.40], [0.10, 0.10, 0.10])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.2, -0.048, 0.448)
    """
    left, right = finite_pairs(a, b, "fold values", 2)
    mean, sd = mean_sd(left - right)
    half = student_t_quantile(0.5 + share(confidence, "confidence") / 2, len(left) - 1) * sd / math.sqrt(len(left))
    return Interval(mean, mean - half, mean + half, len(left), "folds")


def student_t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for whole degrees of freedom, from the finite sum of its distribution.

    Args:
        probability: strictly between 0 and 1.
        degrees: degrees of freedom, at least 1.

    Returns:
        The quantile.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> from nearfar.metrics import student_t_quantile
        >>> round(student_t_quantile(0.975, 7), 4)
        2.3646
    """
    if not 0.0 < share(probability, "probability") < 1.0:
        raise InputError(f"expected a probability strictly between 0 and 1, got {probability}; 0.975 is usual")
    degrees = expect_whole("degrees", degrees)
    low, high = -math.pi / 2, math.pi / 2  # t = √degrees · tan(angle)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, degrees) < probability else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _t_below(angle: float, degrees: int) -> float:
    """P(T ≤ √degrees · tan(angle)): a finite series in cos(angle), one for odd and one for even degrees."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for step in range(2 if odd else 1, degrees - 2, 2):
        term *= cosine * cosine * step / (step + 1)
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + inside / 2


def _percentiles(value: float, drawn: NDArray[np.float64], confidence: float, n: int, unit: str) -> Interval:
    usable = drawn[~np.isnan(drawn)]
    if len(usable) == 0:
        raise InputError("expected a statistic that is defined in some draw, got NaN in all; use more classes")
    tail = (1.0 - share(confidence, "confidence")) / 2
    low, high = np.quantile(usable, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high), n, unit)
