"""Numbers from embeddings: against loops over pairs, and against the metrics they resample."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nearfar.app.resampling import DrawnPairs, rates_at
from nearfar.app.scoring import Judged, flat_map, histogram, per_class, realised, worst
from nearfar.metrics import auc, equal_error_rate, fnmr_at_fmr, pair_scores

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4])
NAMES = ["ann", "bob", "cat", "dan", "eve"]
PATHS = [f"{NAMES[c]}/{i}.png" for i, c in enumerate(LABELS)]


@pytest.fixture(params=["fine", "tied"])
def judged(request: pytest.FixtureRequest) -> Judged:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(5, 6))[LABELS] + rng.normal(size=(len(LABELS), 6))
    if request.param == "tied":
        rows = np.round(rows / 2)
        rows[:, 0] = 1
    return Judged("m", "model", rows, LABELS)


def copies(judged: Judged, weights: np.ndarray) -> tuple[list[float], list[float]]:
    """Every pair written down as often as its weight says."""
    same: list[float] = []
    different: list[float] = []
    for i, j in combinations(range(len(LABELS)), 2):
        a, b = LABELS[i], LABELS[j]
        if a == b:
            same += [judged.scores[i, j]] * int(weights[a])
        else:
            different += [judged.scores[i, j]] * int(weights[a] * weights[b])
    return same, different


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (2, 0, 1, 1, 1), (0, 3, 0, 1, 1)])
def test_a_drawn_class_is_a_copied_class(judged: Judged, weights: tuple[int, ...]) -> None:
    w = np.array(weights, dtype=float)
    same, different = copies(judged, w)
    drawn = DrawnPairs(judged.pairs)
    assert drawn.auc(w) == pytest.approx(auc(same, different), abs=1e-12)
    assert drawn.eer(w) == pytest.approx(equal_error_rate(same, different), abs=1e-12)
    for fmr in (0.01, 0.05, 0.1, 0.3, 1.0):
        assert drawn.fnmr_at_fmr(w, fmr) == pytest.approx(fnmr_at_fmr(same, different, fmr)[0], abs=1e-12)


def test_a_draw_of_one_class_has_no_different_pairs(judged: Judged) -> None:
    only = np.array([5.0, 0, 0, 0, 0])
    assert np.isnan(judged.drawn.fnmr_at_fmr(only, 0.05))
    assert np.isnan(judged.drawn.auc(only))
    assert np.isnan(judged.drawn.eer(only))


def test_a_failed_comparison_is_never_accepted() -> None:
    scores = np.array([[1, np.nan, 0.1], [np.nan, 1, 0.2], [0.1, 0.2, 1]])
    drawn = DrawnPairs(pair_scores(scores, [0, 0, 1]))
    assert drawn.fnmr_at_fmr(np.ones(2), 0.5) == 1.0


def test_rates_at_a_threshold(judged: Judged) -> None:
    same, different = copies(judged, np.ones(5))
    fmr, fnmr = rates_at(judged.pairs, 0.4)
    assert fmr.value == pytest.approx(np.mean([s >= 0.4 for s in different]))
    assert fnmr.value == pytest.approx(np.mean([s < 0.4 for s in same]))
    assert fmr.low <= fmr.value <= fmr.high
    assert (fmr.n, fmr.unit) == (5, "classes")
    assert realised(judged, 0.4)["fmr"]["value"] == fmr.value


def test_a_method_does_not_differ_from_itself(judged: Judged) -> None:
    found = judged.difference(judged, 0.05)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_numbers_hold_value_interval_and_unit(judged: Judged) -> None:
    numbers = judged.numbers()
    assert set(numbers["fnmr_at_fmr"]) == {"0.05", "0.01"}  # too few pairs for 0.001
    for number in (*numbers["fnmr_at_fmr"].values(), *(numbers[k] for k in ("eer", "auc", "map_at_r"))):
        assert set(number) == {"value", "low", "high", "n", "unit"}
        assert number["low"] <= number["high"]
    assert numbers["det"]["fmr"] == sorted(numbers["det"]["fmr"])
    assert numbers["det"]["fnmr"] == sorted(numbers["det"]["fnmr"], reverse=True)


def test_points_of_the_curve_are_points_of_the_data(judged: Judged) -> None:
    same, different = copies(judged, np.ones(5))
    truth = {
        (round(np.mean(np.array(different) >= t), 9), round(np.mean(np.array(same) < t), 9))
        for t in [*same, *different, np.inf]
    }
    curve = judged.numbers()["det"]
    assert {(round(x, 9), round(y, 9)) for x, y in zip(curve["fmr"], curve["fnmr"], strict=True)} <= truth


def test_per_class_errors_against_loops(judged: Judged) -> None:
    rows = {row["name"]: row for row in per_class(judged, NAMES, 0.3)}
    for label, name in enumerate(NAMES):
        own = np.flatnonzero(label == LABELS)
        other = np.flatnonzero(label != LABELS)
        missed = [judged.scores[i, j] < 0.3 for i in own for j in own if i != j]
        false = [judged.scores[i, j] >= 0.3 for i in own for j in other]
        assert rows[name]["fnmr"] == pytest.approx(np.mean(missed))
        assert rows[name]["fmr"] == pytest.approx(np.mean(false))
        assert rows[name]["items"] == len(own)
    missed = [row["fnmr"] for row in per_class(judged, NAMES, 0.3)]
    assert missed == sorted(missed, reverse=True)


def test_the_worst_pairs_come_first_and_no_picture_fills_the_list(judged: Judged) -> None:
    found = worst(judged, PATHS, NAMES)
    different = max(judged.scores[i, j] for i, j in combinations(range(len(LABELS)), 2) if LABELS[i] != LABELS[j])
    assert found["different"][0]["similarity"] == pytest.approx(different)
    similarities = [pair["similarity"] for pair in found["same"]]
    assert similarities == sorted(similarities)
    for pairs in found.values():
        shown = [path for pair in pairs for path in (pair["a"], pair["b"])]
        assert max(shown.count(path) for path in shown) <= 2
    assert all(pair["class_a"] == pair["class_b"] for pair in found["same"])
    assert all(pair["class_a"] != pair["class_b"] for pair in found["different"])


def test_histogram_loses_no_pair(judged: Judged) -> None:
    found = histogram(judged.pairs, bins=7)
    assert sum(found["same"]) == pytest.approx(1)
    assert sum(found["different"]) == pytest.approx(1)
    assert len(found["edges"]) == 8


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_embeddings_are_a_result_and_not_an_error(value: float) -> None:
    judged = Judged("m", "collapsed", np.full((len(LABELS), 3), value), LABELS)
    numbers = judged.numbers()
    assert numbers["fnmr_at_fmr"]["0.05"]["value"] == 1.0
    assert numbers["auc"]["value"] == 0.5
    assert np.isfinite(flat_map(judged, PATHS, NAMES)["explained"]).all()
    assert sum(histogram(judged.pairs)["same"]) == pytest.approx(1)
