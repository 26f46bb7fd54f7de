import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar._errors import InputError, ShapeError
from nearfar.metrics import accept_rate, auc, det_curve, equal_error_rate, fnmr_at_fmr, pair_scores

SCORES = st.lists(st.sampled_from([-3.0, -1.0, -0.5, 0.0, 2.0, 7.5, -np.inf, np.nan]), min_size=1, max_size=9)


def rate(scores, threshold):
    return sum(1 for s in scores if s >= threshold) / len(scores)


def test_pairs_are_unordered_and_without_self():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(6, 6)), np.array([9, 4, 9, 9, 4, 7])
    pairs = pair_scores(scores, labels)
    genuine, impostor = [], []
    for i in range(6):
        for j in range(i + 1, 6):
            unit = [[4, 7, 9].index(labels[i]), [4, 7, 9].index(labels[j])]
            (genuine if unit[0] == unit[1] else impostor).append((scores[i, j], *unit))
    assert [(s, u, u) for s, u in zip(pairs.genuine, pairs.genuine_unit, strict=True)] == genuine
    sides = zip(pairs.impostor, pairs.impostor_left, pairs.impostor_right, strict=True)
    assert list(sides) == impostor
    assert (pairs.unit_count, pairs.unit) == (3, "classes")


def test_groups_become_the_unit():
    scores, labels = np.eye(4), ["eye-l", "eye-r", "x", "x"]
    pairs = pair_scores(scores, labels, groups=["p", "p", "q", "q"])
    assert (pairs.unit_count, pairs.unit, pairs.genuine_unit.tolist()) == (2, "groups", [1])
    assert pairs.impostor_left.tolist() == [0] * 5
    assert pairs.impostor_right.tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(InputError, match="one group"):
        pair_scores(scores, labels, groups=["p", "p", "q", "r"])


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_det_curve_and_auc_equal_loops(genuine, impostor):
    det = det_curve(genuine, impostor)
    assert (np.diff(det.thresholds[:-1]) > 0).all()
    for t, fmr, fnmr in zip(*det, strict=True):
        assert fmr == rate(impostor, t)
        assert fnmr == pytest.approx(1 - rate(genuine, t), abs=1e-15)
    low = [-np.inf if np.isnan(s) else s for s in genuine], [-np.inf if np.isnan(s) else s for s in impostor]
    wins = [1.0 if g > i else 0.5 if g == i else 0.0 for g in low[0] for i in low[1]]
    assert auc(genuine, impostor) == pytest.approx(np.mean(wins), abs=1e-14)


@settings(max_examples=80, deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.0, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1.0]))
def test_fnmr_at_fmr_is_the_best_that_never_exceeds_the_target(genuine, impostor, target):
    fnmr, threshold = fnmr_at_fmr(genuine, impostor, target)
    assert rate(impostor, threshold) <= target
    assert fnmr == pytest.approx(1 - rate(genuine, threshold), abs=1e-15)
    for other in [*genuine, *impostor]:  # every lower threshold breaks the target
        if other < threshold:
            assert rate(impostor, other) > target


def test_whole_counts_are_exact():
    impostor = np.arange(100.0)
    for percent in range(101):
        _, threshold = fnmr_at_fmr([0.0], impostor, percent / 100)
        assert (impostor >= threshold).sum() == percent
    for n in (7, 10, 49):
        for k in range(1, n):  # a rate one ulp under k / n allows k − 1, though rate · n may round to k
            _, threshold = fnmr_at_fmr([0.0], impostor[:n], np.nextafter(k / n, 0))
            assert (impostor[:n] >= threshold).sum() == k - 1


def test_threshold_keeps_the_dtype_of_the_scores():
    impostor = np.array([0.3, 0.7], dtype=np.float32)
    _, threshold = fnmr_at_fmr(np.array([0.9], dtype=np.float32), impostor, 0.0)
    assert np.float32(threshold) == threshold  # so comparing in float32 cannot accept the impostor
    assert not (impostor >= np.float32(threshold)).any()


@pytest.mark.parametrize("change", [np.exp, lambda s: s - 50.0, np.arctan])
def test_rates_are_unchanged_by_an_increasing_map(change):
    rng = np.random.default_rng(4)
    genuine, impostor = rng.integers(-3, 9, 40) / 3, rng.integers(-9, 4, 90) / 3
    for metric in (equal_error_rate, auc, lambda g, i: fnmr_at_fmr(g, i, 0.05)[0]):
        assert metric(change(genuine), change(impostor)) == metric(genuine, impostor)


def test_equal_error_rate():
    assert equal_error_rate([2.0, 3.0], [-1.0, 1.0]) == 0.0
    assert equal_error_rate([-1.0, 1.0], [2.0, 3.0]) == 1.0
    assert equal_error_rate([1.0] * 3, [1.0] * 5) == 0.5
    assert equal_error_rate([np.nan], [1.0]) == 1.0
    # points (fmr, fnmr): (1, 0), (1/2, 1/4) at 1, (0, 1/4) at 2: crosses at 1/4
    assert equal_error_rate([0.5, 2, 2, 2], [0, 1]) == pytest.approx(0.25)
    # (1, 0) → (2/5, 1/2): 1 − 0.6 s = 0.5 s
    assert equal_error_rate([0, 3], [0, 0, 0, 1, 1]) == pytest.approx(5 / 11)


def test_named_errors():
    for metric in (det_curve, equal_error_rate, auc):
        with pytest.raises(InputError, match="genuine"):
            metric([], [1.0])
        with pytest.raises(InputError, match="impostor"):
            metric([1.0], [])
    with pytest.raises(InputError, match="between 0 and 1"):
        fnmr_at_fmr([1.0], [0.0], 5)
    with pytest.raises(InputError, match="infinity"):
        auc([1.0], [np.inf])
    with pytest.raises(InputError, match="at least one score"):
        accept_rate([], 0.5)
    with pytest.raises(ShapeError, match="square"):
        pair_scores(np.zeros((2, 3)), [1, 2])
    with pytest.raises(ShapeError, match="labels"):
        pair_scores(np.zeros((2, 2)), [1, 2, 3])
    empty = pair_scores(np.zeros((0, 0)), np.zeros(0, dtype=int))
    assert (len(empty.genuine), len(empty.impostor), empty.unit_count) == (0, 0, 0)
