"""Is what was wanted met? Each bar of a case against its measurements."""

from __future__ import annotations

from math import log
from statistics import fmean
from typing import Any

from nearfar.bench.cases import Bar, Case
from nearfar.bench.catalogue import DENSE, LOSSES, OURS

TOLERANCE = 0.1
"""Of a slope."""


def judged(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its bars: what was wanted, what came, whether that meets it.

    Args:
        case: The case.
        row: What `measured` gave.

    Returns:
        The row with `bars`, and for growth with `slopes`; a bar whose numbers are missing is not judged (None).

    Example:
        >>> from nearfar.bench import CASES, judged
        >>> times = {"nearfar": {"median": 0.5}, "pytorch-metric-learning": {"median": 4.0}}
        >>> row = {"seconds": times, "megabytes": {"nearfar": {"high": 50.0}}}
        >>> case = next(case for case in CASES if case.name == "contrastive-8192")
        >>> [(bar["wanted"], bar["got"], bar["met"]) for bar in judged(case, row)["bars"]]
        [('≥ 8 times as fast as pytorch-metric-learning', 8.0, True), ('≤ 48 MB', 50.0, False)]
    """
    row = dict(row)
    if "growth" in case.groups:
        row["slopes"] = {"seconds": _slope(row["seconds"], "median"), "megabytes": _slope(row["megabytes"], "high")}
    row["bars"] = [_judge(bar, case, row) for bar in case.bars]
    return row


def _judge(bar: Bar, case: Case, row: dict[str, Any]) -> dict[str, Any]:
    wanted, got, met = _WAYS[bar.kind](bar, case, row)
    return {"wanted": wanted, "got": got, "met": None if got is None else met}


Judgement = tuple[str, float | None, bool]


def _faster(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    got = _over(row["seconds"], bar.rival, "median")
    return f"≥ {bar.limit:g} times as fast as {bar.rival}", got, got is not None and got >= bar.limit


def _time(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    ratio = _over(row["seconds"], bar.rival, "median")
    got = None if ratio is None else 1 / ratio
    return f"≤ {bar.limit:.3g} × the time of {bar.rival}", got, got is not None and got <= bar.limit


def _best(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    ratios = [_over(row["seconds"], rival, "median") for rival in (DENSE, LOSSES[case.loss].peer or DENSE)]
    got = None if ratios[0] is None else min(ratio for ratio in ratios if ratio is not None)
    return f"≥ {bar.limit:g} times as fast as the best other", got, got is not None and got >= bar.limit


def _memory(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    got = row["megabytes"].get(OURS, {}).get("high")
    return f"≤ {bar.limit:g} MB", got, got is not None and got <= bar.limit


def _share(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    ratio = _over(row["megabytes"], bar.rival, "high")
    got = None if ratio is None else 1 / ratio
    return f"≤ {bar.limit:g} of {bar.rival}'s memory", got, got is not None and got <= bar.limit


def _time_slope(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    got = row["slopes"]["seconds"]
    return f"slope of time {bar.limit:g} ± {TOLERANCE}", got, got is not None and abs(got - bar.limit) <= TOLERANCE


def _memory_slope(bar: Bar, case: Case, row: dict[str, Any]) -> Judgement:
    got = row["slopes"]["megabytes"]
    return f"slope of memory ≤ {bar.limit:g} + {TOLERANCE}", got, got is not None and got <= bar.limit + TOLERANCE


_WAYS = {
    "faster": _faster,
    "time": _time,
    "best": _best,
    "memory": _memory,
    "share": _share,
    "slope": _time_slope,
    "memory slope": _memory_slope,
}


def _over(numbers: dict[str, Any], rival: str, key: str) -> float | None:
    """The rival's number over ours."""
    if OURS not in numbers or rival not in numbers:
        return None
    return float(numbers[rival][key] / max(numbers[OURS][key], 1e-9))


def _slope(numbers: dict[str, Any], key: str) -> float | None:
    """Least squares of the logarithms against the logarithms of the sizes; None with fewer than three sizes."""
    points = [(log(int(n)), log(max(entry[key], 1e-9))) for n, entry in numbers.items()]
    if len(points) < 3:
        return None
    x0, y0 = (fmean(column) for column in zip(*points, strict=True))
    return sum((x - x0) * (y - y0) for x, y in points) / sum((x - x0) ** 2 for x, _ in points)
